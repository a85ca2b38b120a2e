"""Parts that are split off a file: by a hash, so that the order of the lines does not matter, and of labels in their
shares, so that a rare one is trained on, and tested if there are two of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.tasks.base import Example, TaskError

Parts = dict[str, list[Example]]
# Records that are split off where neither a file nor a number is given, and the most of a file that they may be.
SPLIT_OFF = {"val": (100, 0.1), "test": (200, 0.2)}


def sized(read: Parts, config: Any, seed: int, labelled: bool = False) -> Parts:
    """The parts in the sizes that task.n_train, n_val and n_test ask for (None: all there are, or SPLIT_OFF).

    labelled: the answers are labels, whose shares each part keeps.
    """
    parts, n_read = dict(read), len(read["train"])
    for part in ("test", "val"):
        n = getattr(config, f"n_{part}")
        if part in read:
            parts[part] = read[part] if n is None else taken(part, read[part], n, seed)[0]
            continue
        most, share = SPLIT_OFF[part]
        n = max(1, min(most, int(n_read * share))) if n is None else n
        parts[part], parts["train"] = taken(part, parts["train"], n, seed, labelled)
        if not parts["train"]:
            split_off = [f"task.n_{p}" for p in ("val", "test") if p not in read]
            together = len({rank(row, seed) for row in read["train"]})
            what = "groups" if any(row.group for row in read["train"]) else "prompts"
            kept = f", of {together} different {what}, which are never divided," if together < n_read else ""
            raise TaskError(
                f"{config.train}: {n_read} records{kept} leave none to train on; "
                f"lower {' or '.join(split_off)} or give files"
            )
    if config.n_train is not None:
        parts["train"], _ = taken("train", parts["train"], config.n_train, seed)
    return parts


def taken(
    part: str, rows: list[Example], n: int, seed: int, labelled: bool = False
) -> tuple[list[Example], list[Example]]:
    """The n records with the smallest hashes, of each label its share, and the others, both in their order."""
    if n > len(rows):
        raise TaskError(f"task.n_{part}={n}: there are only {len(rows)} records to take them from")
    ranks = [rank(row, seed) for row in rows]
    chosen = stratified(rows, ranks, n) if labelled else set(sorted(ranks)[:n])
    return [r for r, own in zip(rows, ranks) if own in chosen], [r for r, own in zip(rows, ranks) if own not in chosen]


def rank(example: Example, seed: int) -> str:
    """A hash of the group, or else of the prompt: the split does not depend on the order of the lines."""
    prompt = [example.messages, example.text, example.text_pair]
    content = json.dumps(example.group or prompt, sort_keys=True)
    return hashlib.sha256(f"{seed}/{content}".encode()).hexdigest()


def stratified(rows: Sequence[Example], ranks: Sequence[str], n: int) -> set[str]:
    """The ranks whose records, n of them or a few more, have each label in its share.

    What has one rank, a prompt or a group, goes together, whatever its labels. No label loses its last rank to the part
    while n can be had without; of the rarest the part takes first.
    """
    labels: dict[str, Counter[str]] = defaultdict(Counter)  # a rank's records by label
    for row, own in zip(rows, ranks):
        labels[own][row.completion] += 1
    left = Counter(label for counts in labels.values() for label in counts)  # ranks that the others keep, by label
    wanted = quotas(Counter(row.completion for row in rows), left, n)
    chosen: set[str] = set()
    held: Counter[str] = Counter()  # the part's records by label

    def take(own: str, keep: bool) -> None:
        if own not in chosen and not (keep and any(left[label] == 1 for label in labels[own])):
            chosen.add(own)
            held.update(labels[own])
            left.subtract(labels[own].keys())

    in_order = sorted(labels)
    for label in sorted(wanted, key=lambda label: (left[label], label)):
        for own in in_order:
            if held[label] >= wanted[label]:
                break
            if label in labels[own]:
                take(own, keep=True)
    for keep in (True, False):
        for own in in_order:
            if held.total() >= n:
                return chosen
            take(own, keep)
    return chosen


def quotas(counts: Mapping[str, int], ranks: Mapping[str, int], n: int) -> dict[str, int]:
    """How many of n records have each label: its share by the largest remainders, but one at least where another rank
    has it too, as far as n goes.

    counts: the records of each label; ranks: the prompts or groups that have it.
    """
    total = sum(counts.values())
    exact = {label: n * count / total for label, count in counts.items()}
    given = {label: int(share) for label, share in exact.items()}
    by_rest = sorted(counts, key=lambda label: (given[label] - exact[label], label))
    for label in by_rest[: n - sum(given.values())]:
        given[label] += 1
    for label in sorted(counts):
        if given[label] == 0 and ranks[label] > 1:
            most = max(given, key=lambda other: (given[other], other))
            if given[most] > 1:
                given[most] -= 1
                given[label] = 1
    return given
