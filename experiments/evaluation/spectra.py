"""What a training has done to the weights: ΔW of every changed matrix, as singular values tell it.

Legend: W (N, K) of the base, Δ its change, σ₁ ≥ σ₂ ≥ … the singular values of Δ.

    norm            ‖Δ‖_F / ‖W‖_F
    rank            #{σ > max(N, K) ε₃₂ σ₁}
    stable rank     Σσ² / σ₁²
    effective rank  exp(−Σ p log p), p = σ / Σσ (Roy and Vetterli 2007)
    intruders       of the first TOP left singular vectors u' of W + Δ, those with max_i |cos(u', u_i)| < COSINE over
                    all left singular vectors u_i of W (Shuttleworth et al. 2024)

W + Δ is folded in fp64, before it is rounded to the model's dtype: in bf16 the rounding alone has the size of a small Δ
and every rank. What has no ΔW (a prefix, a prompt, an adapter with its non-linearity) is counted and left out.
"""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

import deltatune as dt
from deltatune.host import Host, hosts, strengths_of
from deltatune.hosts import own_parameters, stacks
from deltatune.merge import fold_host
from experiments.models.weights import NAME

TOP, COSINE = 10, 0.5  # the leading vectors that are looked at, and what makes one of them new
MEASURES = ("norm", "rank", "stable_rank", "effective_rank", "intruders")
Stack = list[dt.DeltaModule]
Change = tuple[str, Tensor, Tensor]  # a weight's name, W and W + Δ


@dataclass
class Skipped:
    """Sites whose delta is no change of a weight."""

    count: int = 0
    why: str = ""


@torch.no_grad()
def spectra(model: nn.Module, load_base: Callable[[], nn.Module] | None = None) -> dict[str, Any]:
    """The result's part on ΔW: means over the changed matrices of each kind of site.

    load_base: of a model that was trained whole, its base loaded anew; None of one with deltas in it.
    """
    skipped = Skipped()
    changes = changes_by_deltas(model, skipped) if load_base is None else changes_of_all(model, load_base())
    by_kind: dict[str, list[dict[str, float]]] = defaultdict(list)
    for name, base, tuned in changes:
        if base.ndim == 2 and not torch.equal(base, tuned):
            by_kind[kind_of(name)].append(measures(base.double(), tuned.double()))
    every = [each for measured in by_kind.values() for each in measured]
    return {
        "top": TOP,
        "cosine": COSINE,
        "sites": {kind: means(measured) for kind, measured in sorted(by_kind.items())},
        "all": means(every) if every else None,
        "reason": reason(skipped, bool(every)),
    }


def reason(skipped: Skipped, changed: bool) -> str | None:
    """Why some, or all, of the change is not in the numbers."""
    if skipped.count:
        return f"{skipped.count} sites are left out, whose delta is no change of weights: {skipped.why}"
    return None if changed else "no matrix was changed"


def changes_by_deltas(model: nn.Module, skipped: Skipped) -> Iterator[Change]:
    """Of every host, its own weights without and with its deltas; a new task head, which has no base, is none."""
    for path, host in hosts(model):
        stack = list(stacks(host).get(NAME, ()))
        if stack and not any(isinstance(delta, dt.Head) for delta in stack):
            yield from changes_of_host(path, host, stack, skipped)


def changes_of_host(path: str, host: Host, stack: Stack, skipped: Skipped) -> Iterator[Change]:
    wide = {n: None if p is None else p.detach().double() for n, p in own_parameters(host).items()}
    try:
        if any(delta.site == "attention" for delta in stack):
            raise dt.NotFoldable(f"{path}: {type(stack[0]).__name__} changes the attention")
        copies = [copy.deepcopy(delta).double() for delta in stack]
        tuned = fold_host(path, host, wide, [(NAME, delta, strengths_of(host)[NAME]) for delta in copies])
    except dt.NotFoldable as error:
        skipped.count += 1
        skipped.why = skipped.why or str(error)
        return
    for name, value in tuned.items():
        if value is not None and wide.get(name) is not None:
            yield f"{path}.{name}", cast(Tensor, wide[name]), value


def changes_of_all(model: nn.Module, base: nn.Module) -> Iterator[Change]:
    """Of a model that was trained whole, every parameter that its base has too; a tied one once."""
    cast(Any, base).to(next(model.parameters()).device)
    earlier = dict(under_head(base).named_parameters())
    for name, p in under_head(model).named_parameters():
        yield name, earlier[name].detach(), p.detach()


def under_head(model: nn.Module) -> nn.Module:
    """The model without a task head, which is new and random in each that is loaded."""
    loaded: Any = model
    return model if loaded.get_output_embeddings() is not None else loaded.base_model


def kind_of(name: str) -> str:
    """A weight's place in its layer, as all layers have it: "model.layers.3.mlp.up_proj.weight" → "mlp.up_proj"."""
    return re.sub(r"^.*\.\d+\.", "", name).removesuffix(".weight")


def measures(base: Tensor, tuned: Tensor) -> dict[str, float]:
    """The numbers of one matrix, in fp64."""
    delta = tuned - base
    values = torch.linalg.svdvals(delta)
    share = values / values.sum()
    share = share[share > 0]
    smallest = max(delta.shape) * torch.finfo(torch.float32).eps * values[0]  # deltas are trained and kept in fp32
    return {
        "norm": (delta.norm() / base.norm()).item(),
        "rank": float((values > smallest).sum().item()),
        "stable_rank": (values.square().sum() / values[0].square()).item(),
        "effective_rank": torch.exp(-(share * share.log()).sum()).item(),
        "intruders": float(intruders(base, tuned)),
    }


def intruders(base: Tensor, tuned: Tensor, top: int = TOP, cosine: float = COSINE) -> int:
    """How many of the leading left singular vectors of the tuned matrix are like none of the base's."""
    nearest = (left_vectors(base).T @ left_vectors(tuned)[:, :top]).abs().amax(dim=0)
    return int((nearest < cosine).sum().item())


def left_vectors(matrix: Tensor) -> Tensor:
    """The left singular vectors (N, min(N, K)), the leading first, by the smaller of the two Gram matrices.

    An SVD would take six times as long. Vectors of σ below √ε₆₄ σ₁ are not told from one another; of a tall matrix they
    are left at zero.
    """
    if matrix.shape[0] <= matrix.shape[1]:
        return torch.linalg.eigh(matrix @ matrix.T).eigenvectors.flip(1)
    squares, right = torch.linalg.eigh(matrix.T @ matrix)
    left = matrix @ right.flip(1)
    sizes = squares.flip(0).clamp(min=0).sqrt()
    kept = sizes > sizes[0] * torch.finfo(matrix.dtype).eps ** 0.5
    return torch.where(kept, left / sizes.clamp(min=torch.finfo(matrix.dtype).tiny), torch.zeros_like(left))


def means(measured: list[dict[str, float]]) -> dict[str, float]:
    """Means over matrices, and how many there are."""
    return {"n_weights": len(measured)} | {
        name: sum(each[name] for each in measured) / len(measured) for name in MEASURES
    }
