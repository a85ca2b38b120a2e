"""Which deltas are wanted, at what strength: a default on every host, and blocks of one thread or task over it.

A block belongs to the context that entered it (`contextvars`: a thread, a task and the tasks that it starts). The last
one entered and not yet left rules; leaving takes out that one block, wherever it stands. A thread begins with the
defaults.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.compiler import is_compiling

Strengths = dict[str, float]
OPEN: ContextVar[tuple[Block, ...]] = ContextVar("deltatune_blocks")
STASH = "deltatune_blocks"  # the key in torch's thread-local state, which threads of a backward inherit


class Entered:
    """Who entered a block, and whether somebody else left it: asyncio closes a generator in a task of its own."""

    def __init__(self) -> None:
        self.by, self.left = who(), False


def who() -> tuple[int, Any]:
    """This thread and, where one runs in it, the task."""
    task = asyncio.current_task() if asyncio._get_running_loop() is not None else None
    return threading.get_ident(), None if task is None else weakref.ref(task)


class Block(NamedTuple):
    """What one open block says: by id of a host's carrier of deltas, the strength of each name that it knew."""

    said: dict[int, Strengths]
    carriers: tuple[nn.Module, ...]  # kept alive, so that no id comes to mean another one
    entered: Entered


class Here:
    """The open blocks of this thread or task; the object itself where there never was one (`ContextVar.get(default)`).

    torch.compile evaluates such a property of C code in its guards, in whichever thread or task calls: a graph serves
    the strengths that it was made for.
    """

    open = property(OPEN.get)  # type: ignore[arg-type]


HERE = Here()
packing = torch._C._autograd._top_saved_tensors_default_hooks  # type: ignore[attr-defined]


def opened() -> tuple[Block, ...]:
    """The blocks of this thread or task, in the order of entering."""
    blocks: Any = HERE.open
    if blocks is not HERE:
        return blocks
    if torch._C._current_graph_task_id() >= 0 and torch._C._is_key_in_tls(STASH):  # type: ignore[attr-defined]
        return torch._C._get_obj_in_tls(STASH)  # a thread of the backward: those of the thread that started it
    return ()


def set_opened(blocks: Iterable[Block]) -> None:
    kept = tuple(block for block in blocks if not block.entered.left)
    OPEN.set(kept)
    torch._C._stash_obj_in_tls(STASH, kept)


def enter(said: Mapping[Any, Strengths]) -> Block:
    """Open a block: from here on these carriers have these strengths, in this thread or task."""
    block = Block({id(carrier): strengths for carrier, strengths in said.items()}, tuple(said), Entered())
    set_opened((*opened(), block))
    return block


def leave(block: Block) -> None:
    """Take the block out, wherever it stands among the open ones; of whoever entered it, where another one leaves."""
    block.entered.left = block.entered.by != who()
    set_opened(each for each in opened() if each.entered is not block.entered)


def forget(carriers: Iterable[nn.Module], name: str | None = None) -> None:
    """Let this thread's or task's blocks say nothing of one name on these carriers, or nothing at all of them."""
    gone = {id(carrier) for carrier in carriers}

    def rest(i: int, said: Strengths) -> Strengths:
        return said if i not in gone else {n: s for n, s in said.items() if n != name and name is not None}

    if opened():
        set_opened(b._replace(said={i: rest(i, said) for i, said in b.said.items()}) for b in opened())


def wanted(carrier: nn.Module, default: Strengths) -> Strengths:
    """The strengths on a carrier in this thread or task. What activation checkpointing runs again, in its backward,
    has those that its forward had."""
    blocks: Any
    if is_compiling():
        blocks = HERE.open
        return default if blocks is HERE else overlaid(blocks, carrier, default)
    hooks = packing(True)
    if hooks is None:
        blocks = opened()
        return overlaid(blocks, carrier, default) if blocks else default
    frame, again = checkpoint_frame(hooks[0])
    if frame is None:
        return overlaid(opened(), carrier, default)
    forward = FRAMES.setdefault(frame, {})
    if not again or id(carrier) not in forward:
        forward[id(carrier)] = overlaid(opened(), carrier, default)
    return forward[id(carrier)]


def overlaid(blocks: tuple[Block, ...], carrier: nn.Module, default: Strengths) -> Strengths:
    """The default, and over it what the last of the blocks that knows the carrier says."""
    for block in reversed(blocks):
        if id(carrier) in block.said and not block.entered.left:
            said = block.said[id(carrier)]
            return {name: said.get(name, strength) for name, strength in default.items()}
    return default


FRAMES: WeakKeyDictionary[Any, dict[int, Strengths]] = (
    WeakKeyDictionary()
)  # each region under checkpointing has its own


def checkpoint_frame(pack: Callable[..., Any]) -> tuple[Any, bool]:
    """(torch's record of the region under activation checkpointing, whether it is being run again), or (None, False).

    The record is no public thing: it is what the hook that packs the region's tensors holds.
    """
    pack = getattr(pack, "__wrapped__", pack)
    closure = getattr(pack, "__closure__", None)
    if getattr(pack, "__module__", None) != "torch.utils.checkpoint" or closure is None:
        return None, False
    held = {name: cell.cell_contents for name, cell in zip(pack.__code__.co_freevars, closure, strict=True)}
    if "target_frame_ref" in held:
        return held["target_frame_ref"](), True
    return held.get("frame"), False
