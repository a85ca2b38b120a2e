"""Prompts in a model: the ids that stand for them, and whether the model reads those ids in their table alone."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from deltatune.core import NotReached
from deltatune.host import deltas, deltas_of, hosts, strengths_of, to_run
from deltatune.methods.prompt import Prompt
from deltatune.strengths import enter, leave

ALIKE = 1e-3  # a share of the largest output; the two runs do the same sums


def prompts(model: nn.Module, name: str | None = None) -> list[tuple[nn.Module, str, Prompt]]:
    """(host, name, prompt) of every prompt in the model, or of those of one name."""
    return [(model.get_submodule(path), n, d) for path, n, _, d in deltas(model, name) if isinstance(d, Prompt)]


def ids_of(model: nn.Module, name: str) -> list[int]:
    """The reserved ids of a name's prompts; the tables of an encoder and a decoder may hold one prompt."""
    return list(dict.fromkeys(d.first + i for _, _, d in prompts(model, name) for i in range(d.length)))


def check_ids(model: nn.Module, args: Any, kwargs: Any) -> None:
    """Raise NotReached where a prompt made of tokens does not do in this batch what those tokens do.

    A model may read ids elsewhere than in the table that holds the prompt: it pools at the largest id, or looks them
    up in another table. Compared are two forwards with the prompts alone; their rows are put back.
    """
    live = [(host, n, d) for host, n, d in prompts(model) if to_run(host)[n] != 0]
    tokens = {d.first + i: ordinary(host, i) for host, _, d in live for i in range(d.length)}
    batch = (args, kwargs)
    if not any(bool((t == i).any()) for t in tree_leaves(batch) if is_ids(t) for i in tokens):
        return
    if any(deltas_of(host)._merges for _, host in hosts(model)):
        return
    with alone(model, {n for _, n, _ in live}), rows_kept([d for _, _, d in live]):
        want = outputs(model, tree_map(lambda t: replaced(t, tokens) if is_ids(t) else t, batch))
        for host, _, d in live:
            ids = torch.tensor([tokens[d.first + i] for i in range(d.length)], device=d.P.device)
            d.P.copy_(host(ids))  # what a neighbour changes in the table included
        try:
            got = outputs(model, batch)
        except IndexError as error:
            raise NotReached(f"{complaint(live)}: {error}") from None
    for one, other in zip(got, want):
        if one.shape == other.shape and float((one - other).abs().max()) > ALIKE * float(other.abs().max()):
            raise NotReached(complaint(live))


def complaint(live: list[tuple[nn.Module, str, Prompt]]) -> str:
    first = min(d.first for _, _, d in live)
    return (
        f"a prompt made of tokens is not those tokens here: the model reads the ids of a prompt, {first} and above, "
        "elsewhere than in the table that holds it (it pools at the largest id, or has another table for them); leave "
        "the prompt out, or put Prompt.on(where) on every table that the ids reach"
    )


def ordinary(host: nn.Module, i: int) -> int:
    """The i-th of a table's ids from its middle on, where no padding and no other special token stands."""
    size = cast(nn.Embedding, host).num_embeddings
    return (size // 2 + i) % size


def is_ids(t: Any) -> bool:
    return isinstance(t, Tensor) and t.dtype in (torch.int64, torch.int32)


def replaced(ids: Tensor, tokens: dict[int, int]) -> Tensor:
    for reserved, token in tokens.items():
        ids = torch.where(ids == reserved, token, ids)
    return ids


def outputs(model: nn.Module, batch: Any) -> list[Tensor]:
    """The floating-point tensors that the model gives; a cache that it is given is left as it was."""
    args, kwargs = tree_map(lambda t: t if isinstance(t, Tensor) else copy.deepcopy(t), batch)
    torch.manual_seed(0)
    return [t.float() for t in tree_leaves(model(*args, **kwargs)) if isinstance(t, Tensor) and t.is_floating_point()]


@contextmanager
def alone(model: nn.Module, names: set[str]) -> Iterator[None]:
    """A block in which these names are on alone, in eval mode, without gradients, drawing nothing from outside."""
    said = {deltas_of(host): {n: float(n in names) for n in strengths_of(host)} for _, host in hosts(model)}
    training = [(m, m.training) for m in model.modules()]
    block = enter(said)
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            yield
    finally:
        leave(block)
        for module, mode in training:
            module.training = mode


@contextmanager
def rows_kept(held: list[Prompt]) -> Iterator[None]:
    """A block after which the prompts have their rows back."""
    before = [(d.P, d.P.detach().clone()) for d in held]
    try:
        yield
    finally:
        for p, rows in before:
            p.data.copy_(rows)
