"""A call that is built and timed in a process of its own, as its users run it: with its own heap, and nobody else's.

The processes take turns, one call each, so a machine's drift still meets all of them alike.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import torch

from benchmarks.timing import Timed, once, reason
from experiments.support.memory import Memory

STEPS = 3  # the peak of the memory is taken over so many

Step = Callable[[], Any]


class Told(RuntimeError):
    """What the process said in place of a number."""


class Apart:
    """load() in the process gives build, and build() the call, or says why there is none. Raises Told then.

    rise_bytes: how far memory rises over what is loaded, while the call is built and made `STEPS` times.
    """

    def __init__(self, load: Callable[[], Callable[[], Step | str]], device: torch.device):
        # Forked from a server that has imported torch and computed nothing: quick to start, and no threads to inherit.
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(["benchmarks.steps", "peft", "transformers.models.llama.modeling_llama"])
        self.pipe, theirs = processes.Pipe()
        processes.Process(target=serve, args=(theirs, load, device, torch.get_num_threads()), daemon=True).start()
        theirs.close()
        self.rise_bytes: int = self.answer()

    def once(self, clock: str) -> float:
        """Milliseconds of one call."""
        self.pipe.send(clock)
        return self.answer()

    def answer(self) -> Any:
        try:
            said = self.pipe.recv()
        except EOFError:
            raise Told("failed: its process ended without a word; out of memory?") from None
        if isinstance(said, str):
            raise Told(said)
        return said


def serve(pipe: Connection, load: Callable[[], Callable[[], Step | str]], device: torch.device, threads: int) -> None:
    """Answer until the other end is closed: with numbers, or with a word on what went wrong."""
    try:
        torch.set_num_threads(threads)
        build = load()
        cuda = device.type == "cuda"
        memory, start = Memory(), torch.cuda.memory_allocated(device) if cuda else 0
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        memory.begin()
        step = build()
        if isinstance(step, str):
            pipe.send(step)
            return
        for _ in range(STEPS):
            step()
        pipe.send(torch.cuda.max_memory_allocated(device) - start if cuda else memory.increase_bytes())
        memory.end()
        while True:
            pipe.send(once(Timed(step), pipe.recv()))
    except EOFError:
        return
    except Exception as error:
        pipe.send(reason(error))
