"""The laws that a method keeps on a model, each a function of a trial that raises where it is broken."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import deltatune as dt
from deltatune.host import deltas, hosts
from tests.certify.architectures import Batch, in_training, run
from tests.certify.trial import Trial, distance, shaken

Law = Callable[[Trial], str | None]  # a word on what did not apply, or None


def identity(trial: Trial) -> None:
    """Injection changes nothing; a prompt made of tokens is those tokens; what is no identity says so."""
    injected = trial.run(trial.started)
    if all(d.identity_at_init for *_, d in deltas(trial.started)):
        trial.equal(injected, trial.plain_output, "injected and the base")


def usual_again(trial: Trial) -> None:
    """The usual sites are the same once a delta is in."""
    rule = trial.column.rule(trial.subject)
    first = [row.path for row in dt.plan(trial.subject.fresh(), rule).rows]
    again = [row.path for row in dt.plan(trial.started, rule).rows]
    assert first == again, f"usual sites once a delta is in: {len(again)}, not {len(first)}"


def verified(trial: Trial) -> None:
    """verify finds every delta reached and given a gradient, and so does it once the deltas have moved."""
    if not trial.subject.trains:
        return
    model = copy.deepcopy(trial.trained)
    try:
        dt.verify(model, **trial.batch)
    except dt.NotReached as error:
        parts = str(error).split("; ")
        lost = [part for part in parts if not in_no_use(trial, part)]
        if lost and len(lost) < len(parts):
            raise dt.NotReached("; ".join(lost)) from None
        if lost:
            raise


def in_no_use(trial: Trial, complaint: str) -> bool:
    """Whether verify complains of a module that this batch has no use for, such as the tower of what is not in it."""
    path = complaint.partition(" (")[0]
    return path in trial.subject.unused


def step(trial: Trial) -> None:
    """A step down the gradient lowers the loss, and moves nothing of the base."""
    if not trial.subject.trains:
        return
    model = copy.deepcopy(trial.trained)
    ours = dict(dt.parameters(model))
    base = {n: t.clone() for n, t in trial.subject.model.state_dict().items() if isinstance(t, Tensor)}

    def loss() -> Tensor:
        out = run(model, trial.batch)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
        return (out * weights).sum() / len(out)

    before = loss()
    before.backward()
    got = {n for n, p in model.named_parameters() if p.grad is not None}
    assert got <= ours.keys(), f"{sorted(got - ours.keys())[0]} of the base got a gradient"
    squares = sum(float(p.grad.square().sum()) for p in ours.values() if p.grad is not None)
    assert 0 < squares < float("inf"), "no gradient, or one that is not finite"
    start = {n: p.detach().clone() for n, p in ours.items()}
    for size in (1e-1, 1e-2, 1e-3, 1e-4):  # the first that is small enough for the model's curvature
        with torch.no_grad():
            for n, p in ours.items():
                if p.grad is not None:
                    p.copy_(start[n] - size * p.grad / squares**0.5)
            after = loss()
        if after < before:
            break
    else:
        raise AssertionError("no step down the gradient lowers the loss")
    assert all(torch.equal(model.state_dict()[n], t) for n, t in base.items()), "a step moved the base"


def strengths(trial: Trial) -> None:
    """Zero is the base to the last bit, almost one is one, and between the two it is neither."""
    model, full = trial.trained, trial.called
    trial.differ(full, trial.plain_output, "trained and the base")
    with dt.active(model):
        assert torch.equal(trial.run(model, trial.subject.batch), trial.base), "switched off is not the base"
    with dt.active(model, default=1 - 2.0**-20):
        trial.equal(trial.run(model), full, "strength almost one")
    with dt.active(model, default=0.5):
        half = trial.run(model)
    trial.differ(half, full, "strength 0.5 and 1")
    if not trial.prompt_key:
        trial.differ(half, trial.base, "strength 0.5 and the base")
    assert torch.equal(trial.run(model), full), "switched off and on again"


def stacking(trial: Trial) -> None:
    """Of two deltas each alone is itself, and with both both are there."""
    if trial.prompt_key:
        return
    model = copy.deepcopy(trial.trained)
    trial.inject(model, "second")
    shaken(model, "second", seed=6)
    with dt.active(model, "default"):
        trial.equal(trial.run(model), trial.called, "the first of two, alone")
    both = trial.run(model)
    trial.differ(both, trial.called, "both and the first alone")
    dt.eject(model, "second")
    trial.equal(trial.run(model), trial.called, "the first, its neighbour taken out")


def merging(trial: Trial) -> str | None:
    """Merged equals called, at full strength and at half of it, and afterwards the model is as before."""
    model = copy.deepcopy(trial.trained)
    for strength in (1.0, 0.5):
        dt.use(model, default=strength)
        called = trial.run(model)
        try:
            with dt.merged(model):
                trial.equal(trial.run(model), called, f"merged and called at strength {strength:g}")
        except dt.NotFoldable as error:
            return f"not foldable: {error}"
        assert torch.equal(trial.run(model), called), "after the block"
    return None


def saving(trial: Trial) -> None:
    """A saved delta on a fresh base is the same function."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "delta.safetensors")
        dt.save(trial.trained, path)
        model = trial.subject.fresh()
        dt.load(model, path)
    assert torch.equal(trial.run(model), trial.called), "loaded and saved"


def ejecting(trial: Trial) -> None:
    """Ejected, classes, keys, bytes and outputs are the base's."""
    model, plain = copy.deepcopy(trial.trained), trial.subject.model
    dt.eject(model)
    assert not hosts(model), "hosts are left"
    assert [(n, type(m)) for n, m in model.named_modules()] == [(n, type(m)) for n, m in plain.named_modules()]
    got, want = model.state_dict(), plain.state_dict()
    assert list(got) == list(want), "keys of the state"
    assert all(torch.equal(got[n], t) for n, t in want.items() if isinstance(t, Tensor)), "bytes of the state"
    assert torch.equal(trial.run(model, trial.subject.batch), trial.base), "outputs"


def copying(trial: Trial) -> None:
    """A copy is equal and independent."""
    twin = copy.deepcopy(trial.trained)
    assert torch.equal(trial.run(twin), trial.called), "copy and original"
    shaken(twin, seed=9)
    assert torch.equal(trial.run(trial.trained), trial.called), "the original moved with its copy"


def generation(trial: Trial) -> None:
    """Greedy generation gives the same with a cache and without, wherever the base does."""
    if not trial.subject.generates or trial.prompt_key not in (None, "input_ids"):
        return
    if not same_with_cache(trial, trial.subject.fresh(), trial.subject.batch):
        return
    assert same_with_cache(trial, copy.deepcopy(trial.trained), trial.batch), "cached and uncached generation differ"


def same_with_cache(trial: Trial, model: nn.Module, batch: Batch) -> bool:
    """Whether logits agree. An error of the base means that there is nothing to compare."""
    given = {n: v for n, v in batch.items() if n not in ("decoder_input_ids", "decoder_attention_mask")}
    ours = bool(hosts(model))
    try:
        results = [generated(model, given, cache) for cache in (False, True)]
    except Exception:
        if ours:
            raise
        return False
    return all(a.shape == b.shape for a, b in [results]) and distance(*results) <= 10 * trial.tolerance


def generated(model: Any, batch: Batch, cache: bool) -> Tensor:
    torch.manual_seed(0)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        out = model.generate(
            **batch, max_new_tokens=3, min_new_tokens=3, do_sample=False, use_cache=cache,
            return_dict_in_generate=True, output_logits=True,
        )  # fmt: skip
    return torch.stack(list(out.logits), 1).float()


def padding(trial: Trial) -> None:
    """A row padded on the right gives at its real tokens what it gives alone, wherever the base does."""
    short = trial.subject.batch
    if set(short) != {"input_ids", "attention_mask"}:
        return
    base = padded_and_alone(trial.subject.model, trial.plain)
    if base is not None and distance(*base) <= trial.tolerance:
        trial.equal(*padded_and_alone(trial.trained, trial.batch), "padded and alone")  # type: ignore[misc]


@torch.no_grad()
def padded_and_alone(model: nn.Module, batch: Batch, real: int = 7) -> tuple[Tensor, Tensor] | None:
    tokens, mask = batch["input_ids"].clone(), batch["attention_mask"].clone()
    tokens[:, real:], mask[:, real:] = 0, 0
    results = []
    for given in ({"input_ids": tokens, "attention_mask": mask}, {n: v[:, :real] for n, v in batch.items()}):
        torch.manual_seed(0)
        try:
            out = model(**given)
        except Exception:
            if hosts(model):
                raise
            return None
        main = next((out[n] for n in ("logits", "last_hidden_state") if n in out), None)
        if not isinstance(main, Tensor) or main.dim() != 3:
            return None
        results.append(main[:, :real].float())
    return (results[0], results[1]) if results[0].shape == results[1].shape else None


def checkpointing(trial: Trial) -> None:
    """Gradient checkpointing changes no gradient, wherever the base trains with it."""
    if not trial.subject.checkpoints:
        return
    plain = gradients(copy.deepcopy(trial.trained), trial.batch, False)
    again = gradients(copy.deepcopy(trial.trained), trial.batch, True)
    assert plain.keys() == again.keys(), "other parameters get gradients under checkpointing"
    names = sorted(plain)
    trial.equal(*(torch.cat([g[n].flatten() for n in names]) for g in (again, plain)), "gradients")


def gradients(model: Any, batch: Batch, checkpointed: bool) -> dict[str, Tensor]:
    """Of a weighted sum of the outputs; in train mode, where checkpointing is on (nothing is dropped out)."""
    if checkpointed:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.gradient_checkpointing_enable({"use_reentrant": False})
    out = run(in_training(model), batch)
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def autocasting(trial: Trial) -> None:
    """In bf16 autocast the injected model runs wherever the base does, and starts from what it gives."""
    with torch.autocast("cpu", torch.bfloat16):
        try:
            base = trial.run(trial.subject.model, trial.plain)
        except Exception:
            return
        got = trial.run(trial.started)
        assert torch.isfinite(trial.run(trial.trained)).all(), "not finite"
        if not all(d.identity_at_init for *_, d in deltas(trial.started)):
            return
    rounding = distance(base, trial.plain_output)  # what autocast itself costs this model
    assert distance(got, base) <= max(0.05, 2 * rounding), "autocast: injected and the base"


LAWS: dict[str, Law] = {
    law.__name__: law
    for law in (
        identity, usual_again, verified, step, strengths, stacking, merging, saving, ejecting, copying, generation,
        padding, checkpointing, autocasting,
    )
}  # fmt: skip
QUICK = ("identity", "verified", "strengths", "merging", "saving")
