"""The cores that a process may use, which in a container are fewer than the machine has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def cores(membership: Path = MEMBERSHIP, groups: Path = GROUPS) -> int:
    """How many cores this process may use: by its affinity, and by the CPU time that its control groups allow."""
    by_affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min([by_affinity, *quotas(membership, groups)])))


def quotas(membership: Path, groups: Path) -> Iterator[float]:
    """The quota in cores of the process's control group, and of each above it, where one is set."""
    try:
        lines = [line.split(":", 2) for line in membership.read_text().splitlines() if line.count(":") > 1]
    except OSError:
        lines = []
    unified = next((path for _, controllers, path in lines if not controllers), "/")
    yield from over(groups, unified, quota)
    named = [(controllers, path) for _, controllers, path in lines if "cpu" in controllers.split(",")]
    for controllers, path in named or [("cpu", "/")]:
        for name in dict.fromkeys((controllers, "cpu")):  # how version 1 is mounted: by all its names, or by one
            yield from over(groups / name, path, older_quota)


def over(groups: Path, path: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    """What is set for the group at the path and for those above it. A container may see its group at the root alone,
    whatever the process's is called."""
    folder = groups / path.lstrip("/")
    for group in (folder, *folder.parents):
        if not group.is_relative_to(groups):
            return
        with suppress(OSError, ValueError, ZeroDivisionError):
            if (n := read(group)) is not None:
                yield n


def quota(group: Path) -> float | None:
    """By version 2, cpu.max: the microseconds of CPU time in each period, or max, and the period."""
    time_us, _, period_us = (group / "cpu.max").read_text().partition(" ")
    return None if time_us == "max" else int(time_us) / int(period_us)


def older_quota(group: Path) -> float | None:
    """By version 1, a file for each of the two; a time of -1 is no bound."""
    time_us = int((group / "cpu.cfs_quota_us").read_text())
    return None if time_us < 0 else time_us / int((group / "cpu.cfs_period_us").read_text())
