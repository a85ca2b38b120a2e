"""What must be known of a task's runs before they are compared: do they belong together, and what can they tell?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from experiments.store.files import ReportError
from experiments.store.result import Complete

NEAR_THE_MOST = 0.98
MOST_FILES = 10  # an error names no more of each hash
Tested = Mapping[str, Sequence[Complete]]  # complete runs by method


def belong_together(task: str, rows: Sequence[Complete]) -> None:
    """Raises ReportError for runs on different data, or runs that different sources made."""
    # A seed may draw training examples of its own; those that are scored are the same for all.
    alike(
        task,
        rows,
        lambda row: row.data.test_sha256 or row.data.sha256,
        "on different data",
        "delete those of the older data",
    )
    alike(
        task,
        rows,
        lambda row: row.sources_sha256,
        "made by different sources",
        "their numbers may differ by the code alone; run the older ones again",
    )


def alike(
    task: str, rows: Sequence[Complete], of: Callable[[Complete], str | None], differ: str, next_step: str
) -> None:
    """Raises ReportError, with a list, where `of` is not the same of all rows."""
    by_value: dict[str | None, list[str]] = {}
    for row in rows:
        by_value.setdefault(of(row), []).append(str(row.file))
    if len(by_value) > 1:
        listed = "; ".join(f"{value[:12] if value else 'unknown'}: {few(files)}" for value, files in by_value.items())
        raise ReportError(f"{task}: runs {differ} cannot be compared; {next_step}. By hash: {listed}")


def few(files: Sequence[str]) -> str:
    """The files' names, the first of many."""
    more = f" and {len(files) - MOST_FILES} more" if len(files) > MOST_FILES else ""
    return ", ".join(files[:MOST_FILES]) + more


def groups_of(rows: Sequence[Complete]) -> tuple[list[str] | None, str]:
    """The cluster of each scored example, and why there is none where there is none.

    An example without a group is a cluster by itself. Older results do not say which group an example is of.
    """
    groups = next((row.groups for row in rows if row.groups is not None), None)
    if groups is None:
        return None, "the results do not say which examples are drawn together, so each was taken for itself"
    labels = [group or f"example {number}" for number, group in enumerate(groups)]
    if len(set(labels)) < 2:
        return None, f"all test examples are of one group, {labels[0]}: nothing is known of other groups"
    return (labels, "") if len(set(labels)) < len(labels) else (None, "")


def ceilings(tested: Tested) -> list[str]:
    """Warnings where a metric is too easy to tell methods apart: the main one, or one that it is made of."""
    notes = []
    names = dict.fromkeys(name for rows in tested.values() for row in rows for name in row.quality)
    for name in names:
        means = {
            method: fmean(values)
            for method, rows in tested.items()
            if (values := [row.quality[name] for row in rows if name in row.quality])
        }
        high = [method for method, mean in means.items() if NEAR_THE_MOST < mean <= 1]
        if len(high) > 1 and all(0 <= mean <= 1 for mean in means.values()):
            notes.append(f"{name} is near the most there is, so hardly to be told apart: {', '.join(high)}")
    return notes


def mixed(rows: Sequence[Complete]) -> list[str]:
    """What differs between the machines and programs of the runs."""
    notes = []
    for name in ("commit", "dirty", "device", "cpu", "threads", "torch", "transformers"):
        counts = Counter(str(getattr(row.environment, name)) for row in rows)
        if len(counts) > 1:
            listed = ", ".join(f"{value[:12]} ({n})" for value, n in counts.most_common())
            notes.append(f"the runs are of several kinds of {name}: {listed}")
    return notes
