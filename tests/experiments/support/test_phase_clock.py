"""The clock of the phases and the memory's marks."""

from __future__ import annotations

import errno
import mmap
import platform
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from experiments.support import phase_clock
from experiments.support.memory import Memory, release, resident_bytes
from experiments.support.phase_clock import PHASES, PhaseClock
from tests.support.runs import ROOT


class Seconds:
    """A time that passes while one sleeps and never else, so that a busy machine adds nothing."""

    now = 100.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_phases_and_the_rest_are_the_wall_clock(monkeypatch):
    time = Seconds()
    monkeypatch.setattr(phase_clock, "time", time)
    began = time.perf_counter()
    clock = PhaseClock()
    time.sleep(0.03)
    with clock("evaluate"):
        time.sleep(0.01)
        with suppress(KeyboardInterrupt), clock("save"):  # stops the outer clock
            time.sleep(0.04)
            raise KeyboardInterrupt
        time.sleep(0.01)
    seconds = clock.seconds()
    wall_s = time.perf_counter() - began
    assert set(seconds) == {*PHASES, "total"}
    total = seconds.pop("total")
    assert sum(seconds.values()) == pytest.approx(total, rel=1e-9)
    assert total == pytest.approx(wall_s, abs=1e-3)
    assert (seconds["evaluate"], seconds["save"], seconds["other"]) == pytest.approx((0.02, 0.04, 0.03))


def test_an_earlier_process_is_added():
    first = PhaseClock()
    with first("forward"):
        time.sleep(0.02)
    second = PhaseClock()
    second.add(first.seconds())
    with second("forward"):
        time.sleep(0.02)
    seconds = second.seconds()
    total = seconds.pop("total")
    assert seconds["forward"] >= 0.04
    assert sum(seconds.values()) == pytest.approx(total, rel=1e-9)


def test_a_phase_that_is_none_is_refused_and_the_clock_goes_on():
    clock = PhaseClock()
    with pytest.raises(KeyError, match="no phase 'forwards'; there are: start, data, load"), clock("forwards"):
        pass
    assert clock.open == "other"


def test_a_phase_costs_microseconds():
    """Five phases stand in a training step; the fastest of several tries, since the machine may be busy."""
    clock, tries = PhaseClock(), []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(1000):
            with clock("forward", wait=True):
                pass
        tries.append((time.perf_counter() - began) / 1000)
    assert min(tries) < 50e-6


@pytest.mark.parametrize("resettable", [True, False], ids=["mark reset", "sampled"])
def test_memory_of_a_block(monkeypatch, resettable):
    size = 300 << 20
    if not resettable:

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EACCES, "not here")

        monkeypatch.setattr(Path, "write_text", refuse)
    memory = Memory()
    big = np.ones(2 * size, dtype=np.uint8)  # an earlier peak, higher than the one to be measured
    big += 1
    del big
    release()  # an earlier test may have let glibc keep what is freed
    memory.begin()
    held = np.ones(size, dtype=np.uint8)
    for _ in range(20):  # long enough for a sampler
        held += 1
    del held
    assert 0.9 * size < memory.increase_bytes() < 1.2 * size
    assert memory.since_begin() < 2 * size + memory.start
    assert memory.peak_bytes() > 2 * size
    memory.end()


def test_a_job_of_800_mb_does_not_show_in_the_next_one_of_this_process():
    held = np.ones(800 << 20, dtype=np.uint8)
    del held
    release()
    before = resident_bytes()
    memory = Memory()
    memory.begin()
    # Pages of its own: a run in this process may have told malloc to keep freed memory, which it would take these from.
    small = np.frombuffer(mmap.mmap(-1, 10 << 20), dtype=np.uint8)
    small[:] = 1
    assert memory.peak_bytes() - before < 100 << 20
    assert (10 << 20) <= memory.increase_bytes() < 100 << 20
    del small
    memory.end()


def test_a_job_of_800_mb_does_not_show_in_one_that_it_starts():
    """A process of its own has its own mark, though the kernel hands the parent's to it through getrusage."""
    job = (
        "import numpy as np; from experiments.support.memory import Memory; m = Memory(); m.begin();"
        "a = np.ones(10 << 20, dtype=np.uint8); print(m.peak_bytes(), m.increase_bytes())"
    )
    held = np.ones(800 << 20, dtype=np.uint8)
    done = subprocess.run([sys.executable, "-c", job], cwd=ROOT, capture_output=True, text=True, check=True)
    peak, increase = map(int, done.stdout.split())
    assert held[0] == 1
    assert peak < 200 << 20
    assert (10 << 20) <= increase < 30 << 20


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="no glibc here")
def test_freed_memory_is_kept_for_the_next_tensor():
    code = """
import resource, sys, torch
from deltatune.freed_memory import keep_freed
if "keep" in sys.argv:
    keep_freed()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    torch.ones(10_000_000)  # 40 MB, 9,700 pages: glibc itself maps what is above 32 MB anew each time
for _ in range(20):  # its places settle
    step()
before = faults()
for _ in range(10):
    step()
print(faults() - before)
"""
    kept, given_back = (
        int(subprocess.run([sys.executable, "-c", code, word], capture_output=True, text=True, check=True).stdout)
        for word in ("keep", "not")
    )
    assert given_back > 10 * 9_700 and kept < given_back / 4


def test_the_first_gib_of_kept_memory_is_asked_for_in_huge_pages():
    """The kernel's flag "hg" on a mapping says so; whether it has such pages to give is its own affair."""
    if platform.libc_ver()[0] != "glibc" or not Path("/sys/kernel/mm/transparent_hugepage").exists():
        pytest.skip("no glibc, or a kernel without huge pages")
    code = """
from deltatune.freed_memory import keep_freed
def asked():
    size = total = 0
    for line in open("/proc/self/smaps"):
        if line.startswith("Size:"):
            size = int(line.split()[1])
        elif line.startswith("VmFlags:") and "hg" in line.split():
            total += size
    return total >> 10
before = asked()
keep_freed()
keep_freed()  # twice is once
print(asked() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 900 <= int(done.stdout) <= 1200  # MiB
