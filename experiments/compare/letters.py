"""Letters: two methods share one exactly where neither is better than the other."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase


def letters(names: Sequence[str], apart: set[tuple[str, str]]) -> dict[str, str]:
    """Letters by method: two share one exactly where they are not told apart. names: best first, so a is the best's.

    Insert and absorb (Piepho 2004): begin with one group of all; a pair told apart splits every group that holds
    both into one without each; a group inside another one goes. After z comes a'.
    """
    groups = [frozenset(names)]
    for a, b in sorted(apart, key=lambda pair: (names.index(pair[0]), names.index(pair[1]))):
        split = {part for group in groups for part in ([group - {a}, group - {b}] if {a, b} <= group else [group])}
        groups = [group for group in split if not any(group < other for other in split)]
    groups.sort(key=lambda group: sorted(names.index(name) for name in group))
    marks = [ascii_lowercase[i % 26] + "'" * (i // 26) for i in range(len(groups))]
    return {name: "".join(mark for mark, group in zip(marks, groups) if name in group) for name in names}
