"""Laws of running: modes, gradients, checkpointing, padding, caches, dtypes and compilation change nothing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

import deltatune as dt
from deltatune.core import Frozen, Opaque
from deltatune.host import deltas
from tests.support.cases import Case, assert_close, assert_gradients_close, batch_for, front, run
from tests.support.hosts import Host, generate


def modes_agree(case: Case, host: Host) -> None:
    """train, eval, no_grad and inference mode compute the same (dropout is 0)."""
    model = case.trained(host)
    batch = batch_for(host, model)
    want = run(host, model)
    for mode in (True, False):
        model.train(mode)
        out = host.run(model, batch)
        assert out.requires_grad
        assert_close(out.detach(), want, host.reduction)
        assert_close(run(host, model), want, host.reduction)
        with torch.inference_mode():
            assert_close(host.run(model, batch), want, host.reduction)


def gradients(host: Host, model: nn.Module, runs: Any = None) -> tuple[Tensor, dict[str, Tensor]]:
    """(output, gradient of every parameter that got one) of a fixed weighted sum of the outputs."""
    out = host.run(model if runs is None else runs, batch_for(host, model))
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(2))
    (out * weights).sum().backward()
    return out.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def only_deltas_get_gradients(case: Case, host: Host) -> None:
    """Every delta parameter gets a finite gradient, and nothing else gets any; verify agrees."""
    model = case.trained(host)
    ours = {n for n, _ in dt.parameters(model)}
    assert {n for n, p in model.named_parameters() if p.requires_grad} == ours
    dt.verify(model, **batch_for(host, model))
    assert all(p.grad is None for p in model.parameters())
    _, got = gradients(host, model)
    assert got.keys() == ours
    assert all(torch.isfinite(g).all() for g in got.values())


def kernels_are_invisible(case: Case, host: Host) -> None:
    """DELTATUNE_KERNELS=off, the plain mathematics, gives the same outputs and gradients."""
    model, plain = case.trained(host), case.trained(host)
    out, got = gradients(host, model)
    with patch.dict(os.environ, {"DELTATUNE_KERNELS": "off"}):
        true, want = gradients(host, plain)
    assert_close(out, true, host.reduction)
    assert_gradients_close(got, want, host.reduction)


def checkpointing_is_equal(case: Case, host: Host) -> None:
    """Gradient checkpointing changes neither outputs nor gradients."""
    model, other = case.trained(host), case.trained(host)
    out, want = gradients(host, model)
    again, got = gradients(host, other, host.checkpointed(other))
    assert_close(again, out, host.reduction)  # equal to the bit but for T5, which attends by another kernel then
    assert_gradients_close(got, want, host.reduction)


def base_runs_once(case: Case, host: Host) -> None:
    """Each time a host is called, each of its deltas is, and each delta calls its base once, at any strength."""
    model = case.trained(host)
    calls: Counter[str] = Counter()

    def counted(key: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            calls[key] += 1
            return call(*args, **kwargs)

        return run

    def watch(path: str, delta: dt.DeltaModule) -> Callable[..., Any]:
        def enter(_: nn.Module, args: Any, kwargs: Any) -> Any:
            calls[f"{path} delta"] += 1
            base, *rest = args
            if isinstance(base, Frozen):
                base = base._replace(op=counted(f"{path} base", base.op))
            elif isinstance(base, Opaque):
                base = Opaque(counted(f"{path} base", base.call))
            else:
                base = counted(f"{path} base", base)
            return (base, *rest), kwargs

        return enter

    stacks = deltas(model)
    around = [path for path, _, _, d in stacks if d.site != "parameters"]
    assert len(set(around)) == len(around)  # so every base is a host's own
    for path in {path for path, *_ in stacks}:
        model.get_submodule(path).register_forward_pre_hook(lambda *_, p=path: calls.update([f"{p} host"]))
    for path, _, i, delta in stacks:
        delta.register_forward_pre_hook(watch(f"{path} {delta.site} {i}", delta), with_kwargs=True)
    for strength in (1.0, 0.5):
        calls.clear()
        with dt.active(model, default=strength):
            run(host, model)
        for path, _, i, delta in stacks:
            key = f"{path} {delta.site} {i}"
            assert calls[f"{key} base"] == calls[f"{key} delta"] == calls[f"{path} host"], key
        assert any(calls.values())


def padding_is_invisible(case: Case, host: Host) -> None:
    """Padding left, right or none: the same outputs at the real positions, and the same gradients."""
    model = case.trained(host)
    batch = batch_for(host, model, rows=3, tokens=7)
    shift = len(front(model))
    lengths = [shift + n for n in (7, 3, 5)]
    names, ps = zip(*dt.parameters(model))
    alone = [host.run(model, host.cut(batch, i, n))[0] for i, n in enumerate(lengths)]
    weights = [torch.randn(o.shape, generator=torch.Generator().manual_seed(i)) for i, o in enumerate(alone)]

    def slopes(outs: list[Tensor]) -> dict[str, Tensor]:
        total = torch.stack([(o * w).sum() for o, w in zip(outs, weights)]).sum()
        return dict(zip(names, torch.autograd.grad(total, ps)))

    want = slopes(alone)
    for side in ("left", "right"):
        outs = host.real(host.run(model, host.padded(batch, lengths, side)), lengths, side)
        for got, one in zip(outs, alone):
            assert_close(got.detach(), one.detach(), host.reduction)
        assert_gradients_close(slopes(outs), want, host.reduction)


def cache_is_invisible(case: Case, host: Host) -> None:
    """Greedy generation gives the same ids and logits with a cache and without, left-padded rows too."""
    model = case.trained(host)
    whole = batch_for(host, model, rows=2, tokens=5)
    lengths = [len(front(model)) + n for n in (5, 3)]
    for batch in (whole, host.padded(whole, lengths, "left")):
        batch = {k: v for k, v in batch.items() if k != "position_ids"}  # generate derives them from the mask
        tokens, want = generate(model, batch, cache=False)
        cached, got = generate(model, batch, cache=True)
        assert torch.equal(cached, tokens)
        assert_close(got, want, host.reduction)


def parameters_are_fp32(case: Case, host: Host) -> None:
    """A bf16 base keeps its dtype, weights and outputs; the deltas on it are fp32, and so are their gradients."""
    model = host.model().to(torch.bfloat16)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    plain = {k: v.bfloat16() if v.is_floating_point() else v for k, v in host.batch().items()}
    example = plain if case.primed else None
    dt.inject(model, *case.rules(host), example=example)
    batch = {k: v.bfloat16() if v.is_floating_point() else v for k, v in batch_for(host, model).items()}
    out = host.run(model, batch)
    assert out.dtype is torch.bfloat16
    out.float().square().sum().backward()
    for _, p in dt.parameters(model):
        assert p.dtype is torch.float32 and p.grad is not None and p.grad.dtype is torch.float32
    for n, p in before.items():
        assert torch.equal(model.get_parameter(n), p) and model.get_parameter(n).dtype is torch.bfloat16


def compiles_whole(case: Case, host: Host, backend: str = "aot_eager") -> None:
    """torch.compile takes the injected model as one graph, which computes the same, gradients included."""
    model = case.trained(host)
    _, want = gradients(host, model)
    called = run(host, model)
    model.zero_grad()
    torch._dynamo.reset()
    compiled: Any = torch.compile(model, fullgraph=True, backend=backend)
    _, got = gradients(host, model, compiled)
    assert_close(run(host, compiled), called, host.reduction)
    assert_gradients_close(got, want, host.reduction)
