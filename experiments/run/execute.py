"""One run from its configuration to its result: locked, resumed, measured, recorded."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from omegaconf import OmegaConf

from deltatune.freed_memory import keep_freed
from experiments.config.identity import run_name
from experiments.config.schema import Config, Device, check
from experiments.run.failures import kind
from experiments.run.stages import CHECKPOINTS, measured
from experiments.store.files import read
from experiments.store.header import complete, failed
from experiments.store.result import Complete, plain
from experiments.support.files import clear, locked, write_json, write_text
from experiments.support.phase_clock import PhaseClock
from experiments.support.provenance import environment
from experiments.training.checkpoint import seed_everything
from experiments.training.seeds import stream
from experiments.training.trackers import Trackers


def run(config: Config, start: float = 0.0) -> Complete:
    """Carry the run out, or what is left of it, and return its result; a failure is recorded, then raised.

    start: seconds since its process began.
    """
    clock = PhaseClock(start=start)
    with clock("load"):
        check(config)
        directory = Path(config.out) / run_name(config)
        directory.mkdir(parents=True, exist_ok=True)
    lock = locked(directory / "lock")
    if lock is None:
        raise RuntimeError(f"{directory}: another process is at work in this run; wait for it, or stop it")
    with lock:
        clear(directory)
        file = directory / "result.json"
        if file.is_file() and isinstance(earlier := read(file), Complete):
            return earlier
        file.unlink(missing_ok=True)
        with clock("load"):
            trackers = Trackers(config.track, config)
            clock.device = device = set_up(config)
            machine = environment(device)
        with clock("save"):
            write_text(directory / "config.yaml", OmegaConf.to_yaml(OmegaConf.structured(config)))
            write_json(directory / "environment.json", machine)
        try:
            result = complete(config, machine, measured(config, directory, device, clock, trackers))
        except Exception as error:
            failure = plain(failed(config, machine, f"{type(error).__name__}: {error}", kind(error)))
            write_json(file, failure)
            trackers.finish(failure)
            raise
        write_json(file, plain(result))
        trackers.finish(plain(result))
        shutil.rmtree(directory / CHECKPOINTS, ignore_errors=True)  # a complete run has its delta and needs none
        return replace(result, file=file)


def age_s() -> float:
    """Seconds since this process began."""
    return max(0.0, time.time() - psutil.Process().create_time())


def set_up(config: Config) -> torch.device:
    """Threads, the seed of first values, determinism; the device."""
    keep_freed()
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    seed_everything(stream(config, "init"))
    cuda = torch.cuda.is_available() if config.device is Device.auto else config.device is Device.cuda
    if cuda and not torch.cuda.is_available():
        raise ValueError("device=cuda: torch finds no CUDA device here; say device=cpu, or auto")
    torch.use_deterministic_algorithms(not cuda)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return torch.device("cuda" if cuda else "cpu")
