"""One method on one model: the verbs that the laws share, and what is equal, what changed.

A model's own rounding sets the tolerance: how far its outputs move when every weight moves by a unit in the last
place, times a margin. So a deep or steep model is not called wrong for what its own arithmetic does.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import Tensor, nn

import deltatune as dt
from deltatune.host import deltas
from tests.certify.architectures import Batch, Subject, run
from tests.certify.columns import TOKENS, Column

ULPS = 256  # roundings in a row that two orders of one computation may differ by


class Trial:
    """A column on a subject, with the models that several laws look at made once."""

    def __init__(self, subject: Subject, column: Column):
        self.subject, self.column = subject, column

    def inject(self, model: nn.Module, name: str = "default") -> dt.Plan:
        example = self.subject.batch if self.column.primed else None
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return dt.inject(model, self.column.rule(self.subject), name=name, example=example)

    @functools.cached_property
    def started(self) -> nn.Module:
        """The model as injection leaves it; laws copy it, or leave it as it is."""
        model = self.subject.fresh()
        self.inject(model)
        return model

    @functools.cached_property
    def trained(self) -> nn.Module:
        """The model with noise on every delta parameter, as if it had been trained."""
        return shaken(copy.deepcopy(self.started))

    @functools.cached_property
    def called(self) -> Tensor:
        return self.run(self.trained)

    @property
    def base(self) -> Tensor:
        return self.subject.output

    @functools.cached_property
    def plain(self) -> Batch:
        """The batch of the base: for a prompt, with the tokens that it starts from where the prompt stands."""
        return self.batch if not self.prompt_key else placed(self.subject.batch, self.prompt_key, TOKENS)

    @functools.cached_property
    def plain_output(self) -> Tensor:
        with torch.no_grad():
            return run(self.subject.model, self.plain)

    @functools.cached_property
    def batch(self) -> Batch:
        """The batch, with the prompt's ids in it where there is a prompt."""
        key = self.prompt_key
        return self.subject.batch if key is None else placed(self.subject.batch, key, dt.prompt_ids(self.started))

    @functools.cached_property
    def prompt_key(self) -> str | None:
        """Which of the batch's ids the prompt's table reads; None without a prompt."""
        paths = [path for path, _, _, d in deltas(self.started) if isinstance(d, dt.Prompt)]
        return key_of(self.subject, paths) if paths else None

    def run(self, model: nn.Module, batch: Batch | None = None) -> Tensor:
        with torch.no_grad():
            return run(model, self.batch if batch is None else batch)

    @functools.cached_property
    def tolerance(self) -> float:
        return self.subject_tolerance(self.subject)

    @staticmethod
    def subject_tolerance(subject: Subject) -> float:
        """ULPS units in the last place of the output, or of every weight, whichever moves the output more."""
        moved, unit = subject.fresh(), torch.finfo(torch.float32).eps
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for p in moved.parameters():
                if p.is_floating_point():
                    p.mul_(1 + 2.0**-16 * torch.randn(p.shape, generator=generator).to(p.dtype))
            shift = distance(run(moved, subject.batch), subject.output) * 2.0**16
        return ULPS * unit * max(1.0, min(shift, 100.0))

    def equal(self, got: Tensor, want: Tensor, what: str) -> None:
        assert got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, not {tuple(want.shape)}"
        assert torch.isfinite(got).all(), f"{what}: not finite"
        off = distance(got, want)
        assert off <= self.tolerance, f"{what}: off by {off:.1e} of the largest value"

    def differ(self, got: Tensor, base: Tensor, what: str) -> None:
        off = distance(got, base) if got.shape == base.shape else 1.0
        assert off > self.tolerance, f"{what}: no difference"


def distance(got: Tensor, want: Tensor) -> float:
    """The largest difference over the largest value."""
    return float((got - want).abs().max() / want.abs().max().clamp_min(1e-30))


def shaken(model: nn.Module, name: str | None = None, by: float = 0.1, seed: int = 5) -> nn.Module:
    """The model with seeded noise on every parameter of its deltas."""
    noise = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, p in dt.parameters(model, name):
            p += by * torch.randn(p.shape, generator=noise).to(p.dtype)
    return model


def placed(batch: Batch, key: str, ids: Any) -> Batch:
    """The batch with these ids in the place of others, so that lengths and masks stay as they are."""
    tokens = batch[key].clone()
    ordinary = (tokens != tokens[:1]).any(0)  # placeholders of images and ends of texts are the same in every row
    ordinary[0] = False
    columns = ordinary.nonzero()[: len(ids), 0]
    tokens[:, columns] = torch.tensor(list(ids))[: len(columns)]
    return {**batch, key: tokens}


def key_of(subject: Subject, paths: list[str]) -> str | None:
    """The name of the batch's ids that reach the first of these tables."""
    seen: list[Tensor] = []
    model = subject.model
    handles = [
        model.get_submodule(path).register_forward_pre_hook(
            lambda _, args, kwargs: seen.append((*args, *kwargs.values())[0]), with_kwargs=True
        )
        for path in paths
    ]
    try:
        with torch.no_grad():
            run(model, subject.batch)
    finally:
        for handle in handles:
            handle.remove()
    for ids in seen:
        for key, value in subject.batch.items():
            if isinstance(value, Tensor) and value.shape == ids.shape and torch.equal(value, ids):
                return key
    return "input_ids" if "input_ids" in subject.batch else None
