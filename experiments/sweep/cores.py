"""The cores that a process may use, which in a container are fewer than the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def cores(membership: Path = MEMBERSHIP, groups: Path = GROUPS) -> int:
    """How many cores this process may use: by its affinity, and by the CPU time that its control groups allow."""
    by_affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([by_affinity, *quotas(membership, groups)])))


def quotas(membership: Path, groups: Path) -> Iterator[float]:
    """The quota in cores of the process's control group, and of each above it, where one is set (cgroup v2).

    cpu.max holds the microseconds of CPU time in each period, or max, and the period: "150000 100000" is 1.5 cores.
    """
    try:
        own = next(line for line in membership.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        own = "0::/"
    folder = groups / own.removeprefix("0::").lstrip("/")
    for group in (folder, *folder.parents):
        if not group.is_relative_to(groups):
            return
        file = group / "cpu.max"  # a container may see its group at the root alone, whatever the process's is called
        time_us, _, period_us = file.read_text().partition(" ") if file.is_file() else ("max", "", "")
        if time_us != "max":
            yield int(time_us) / int(period_us)
