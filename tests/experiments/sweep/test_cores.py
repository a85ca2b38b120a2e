"""The cores of a container: made-up control groups in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from experiments.sweep.cores import cores


@pytest.fixture(autouse=True)
def sixteen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(16)), raising=False)


def group(folder: Path, quota: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(f"{quota}\n")
    return folder


def membership(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "cgroup"
    file.write_text(text)
    return file


@pytest.mark.parametrize(
    ("quota", "n"), [("max 100000", 16), ("400000 100000", 4), ("150000 100000", 1), ("50000 100000", 1)]
)
def test_a_containers_quota_is_seen(tmp_path: Path, quota: str, n: int) -> None:
    groups = group(tmp_path / "groups", quota)
    assert cores(membership(tmp_path, "0::/\n"), groups) == n
    assert cores(membership(tmp_path, "0::/a/name/outside\n"), groups) == n  # what it is called elsewhere
    assert cores(tmp_path / "none", groups) == n


def test_the_strictest_group_above_the_process_counts(tmp_path: Path) -> None:
    groups = group(tmp_path / "groups", "max 100000")
    group(groups / "service", "300000 100000")
    group(groups / "service" / "session", "max 50000")
    group(groups / "other", "100000 100000")
    group(tmp_path, "100000 100000")  # no group, as it lies outside
    assert cores(membership(tmp_path, "4:memory:/x\n0::/service/session\n"), groups) == 3


def test_without_control_groups_the_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cores(tmp_path / "none", tmp_path / "none") == 16
    assert cores(membership(tmp_path, "1:cpu:/\n"), tmp_path) == 16  # version 1
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cores(tmp_path / "none", tmp_path / "none") == 3


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize(("time_us", "n"), [(-1, 16), (400000, 4), (50000, 1)])
def test_a_containers_quota_is_seen_in_version_1_too(tmp_path: Path, mount: str, time_us: int, n: int) -> None:
    for folder in (tmp_path / "groups" / mount, tmp_path / "groups" / mount / "docker" / "x"):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cpu.cfs_quota_us").write_text(f"{time_us if folder.name == 'x' else -1}\n")
        (folder / "cpu.cfs_period_us").write_text("100000\n")
    text = "4:cpu,cpuacct:/docker/x\n2:memory:/docker/x\n"
    assert cores(membership(tmp_path, text), tmp_path / "groups") == n
    outside = "4:cpu,cpuacct:/elsewhere\n"  # a container sees its own group at the root
    (tmp_path / "groups" / mount / "cpu.cfs_quota_us").write_text(f"{time_us}\n")
    assert cores(membership(tmp_path, outside), tmp_path / "groups") == n
