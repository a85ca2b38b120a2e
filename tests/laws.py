"""The laws that every method keeps on every host, each a function of a case and a host.

A method that is new joins by a `Case` that names its rules; nothing here knows the methods apart, but for what the
case itself declares. Outputs are compared to the last bit in train mode (dropout is 0) without gradients: in eval, torch's
encoder layer computes in another order as long as it carries no delta.
"""

from __future__ import annotations

import copy
import io
import pickle
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import deltatune as dt
from deltatune.core import Frozen, Opaque
from deltatune.host import deltas, hosts
from deltatune.layout import output_head
from tests.cases import Case, assert_changed, assert_close, assert_gradients_close, base_output, batch_for, front, run
from tests.hosts import Host, generate

Law = Callable[[Case, Host], None]


def paths(model: nn.Module) -> list[str]:
    return [path for path, _ in hosts(model)]


def image(model: nn.Module) -> list[Any]:
    """Everything that eject must give back: classes, key orders, Parameter identities, bytes."""
    return [
        [(n, type(m), list(m.__dict__), list(m._modules), list(m._buffers)) for n, m in model.named_modules()],
        [(n, id(p)) for n, p in model.named_parameters(remove_duplicate=False)],
        [(n, t.dtype, t.numpy(force=True).tobytes()) for n, t in model.state_dict().items()],
    ]


def identity_at_start(case: Case, host: Host) -> None:
    """Injection changes nothing, to the last bit where the case says so; or every delta that does is declared."""
    model = host.model()
    plain = host.batch()
    base = base_output(host)
    case.inject(host, model)
    injected = run(host, model, plain)
    assert all(d.identity_at_init for *_, d in deltas(model)) == case.identity
    if not case.identity:
        assert_changed(injected, base, host.reduction)
    elif case.exact:
        assert torch.equal(injected, base)
    else:
        assert_close(injected, base, host.reduction)


def plan_changes_nothing(case: Case, host: Host) -> None:
    """plan gives inject's table, and leaves the model and the random state as they were."""
    model = host.model()
    before, random = image(model), torch.get_rng_state()
    planned = dt.plan(model, *case.rules(host))
    assert image(model) == before and torch.equal(torch.get_rng_state(), random)
    done = case.inject(host, model)
    if not case.primed:
        assert str(planned) == str(done)
    assert done.parameters == sum(p.numel() for _, p in dt.parameters(model)) > 0


def heads_are_left_alone(case: Case, host: Host) -> None:
    """The output head is no usual site, but for the methods that mean everything or the head itself."""
    model = host.model()
    heads = [p for p, _ in output_head(model)] + [p for p, _ in model.named_modules() if p.endswith("lm_head")]
    case.inject(host, model)
    if heads and not case.everywhere:
        assert not set(heads) & set(paths(model))


def fold_equals_call(case: Case, host: Host) -> None:
    """Merged weights compute what the injected deltas do; without a closed form, the error names a site."""
    model = case.trained(host)
    base, called = base_output(host), run(host, model)
    if not front(model):
        assert_changed(called, base, host.reduction)
    before = image(model)
    if case.foldable:
        with dt.merged(model):
            assert not any(h.strengths["default"] for _, h in hosts(model))
            assert_close(run(host, model), called, host.reduction)
    else:
        named = "|".join(map(re.escape, paths(model)))
        with pytest.raises(dt.NotFoldable, match=f"^({named}):"), dt.merged(model):
            pass
    assert image(model) == before
    assert torch.equal(run(host, model), called)


def merge_is_for_good(case: Case, host: Host) -> None:
    """merge leaves a plain model of the original classes that computes the same; or, with an error, everything."""
    model = case.trained(host)
    called, plain = run(host, model), host.model()
    if not case.foldable:
        before = image(model)
        with pytest.raises(dt.NotFoldable):
            dt.merge(model)
        assert image(model) == before
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*merged biases stand where the model's config knows none.*")
        dt.merge(model)
    assert not hosts(model)
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert [(n, p.dtype) for n, p in plain.state_dict().items()] == [
        (n, p.dtype) for n, p in model.state_dict().items() if n in plain.state_dict()
    ]
    assert_close(run(host, model), called, host.reduction)


def strength_zero_is_the_base(case: Case, host: Host) -> None:
    """Switched off, by use() or by strength 0, the model is the base to the last bit, and comes back."""
    model, plain = case.trained(host), host.batch()
    base, called = base_output(host), run(host, model)
    for off in ({}, {"default": 0.0}):
        with dt.active(model, **off):
            assert torch.equal(run(host, model, plain), base)
            if ids := front(model):
                with pytest.raises(dt.NotReached, match="switched off"):
                    host.run(model, host.batch(front=ids))
    assert torch.equal(run(host, model), called)
    quiet = copy.deepcopy(model).eval()
    dt.use(quiet)
    assert_close(run(host, quiet, plain), base, host.reduction)


def strengths_between(case: Case, host: Host) -> None:
    """Strength is continuous at both ends, does something between, and agrees with the merge at that strength."""
    model, plain = case.trained(host), host.batch()
    full = run(host, model)
    with dt.active(model, default=1 - 2.0**-20):
        assert_close(run(host, model), full, host.reduction)
    if not front(model):  # at strength 0 the reserved ids of a prompt stand for nothing
        base = base_output(host)
        with dt.active(model, default=2.0**-20):
            assert_close(run(host, model), base, host.reduction)
    for strength in (0.5, 1.5, -1.0):
        with dt.active(model, default=strength):
            called = run(host, model)
            assert_changed(called, full, host.reduction)
            if case.foldable:
                with dt.merged(model):
                    assert_close(run(host, model), called, host.reduction)


def eject_restores(case: Case, host: Host) -> None:
    """Classes, key orders, Parameter identities, state_dict bytes and outputs, exactly; in train and in eval."""
    model = host.model().requires_grad_(False)
    batch = host.batch()
    before, trained = image(model), run(host, model, batch)
    judged = run(host, model.eval(), batch)
    case.inject(host, model.train())
    run(host, model)
    assert paths(model)
    dt.eject(model)
    assert image(model) == before
    assert torch.equal(run(host, model, batch), trained)
    assert torch.equal(run(host, model.eval(), batch), judged)


def state_dict_keeps_the_base(case: Case, host: Host) -> None:
    """Injected, the base's keys keep names, order and values; the deltas' keys come beside them."""
    before = host.model().state_dict()
    after = case.trained(host).state_dict()
    assert [k for k in after if k in before] == list(before)
    assert all(torch.equal(after[k], t) for k, t in before.items())
    assert all("deltas.default" in k for k in after.keys() - before.keys())


def load_of_save(case: Case, host: Host) -> None:
    """A saved delta on a new model is the same function under any name, and saves to the same bytes."""
    model = case.trained(host)
    want = run(host, model)
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder, "a.safetensors"), Path(folder, "b.safetensors")
        size = dt.save(model, first)
        fresh = host.model()
        table = dt.load(fresh, first, name="another")
        assert size == first.stat().st_size and table.parameters
        assert torch.equal(run(host, fresh), want)
        assert [n.replace("another", "default") for n, _ in dt.parameters(fresh)] == [
            n for n, _ in dt.parameters(model)
        ]
        dt.save(fresh, second, name="another")
        assert first.read_bytes() == second.read_bytes()


def copies(case: Case, host: Host) -> None:
    """deepcopy, pickle and torch.save give equal, independent models that still carry their deltas."""
    model = case.trained(host)
    want = run(host, model)
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    for twin in (
        copy.deepcopy(model),
        pickle.loads(pickle.dumps(model)),
        torch.load(stream, weights_only=False),
    ):
        assert torch.equal(run(host, twin), want)
        assert [type(m) for m in twin.modules()] == [type(m) for m in model.modules()]
        assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}
        with torch.no_grad():
            for _, p in dt.parameters(twin):
                p.zero_()
        assert torch.equal(run(host, model), want)
        dt.eject(twin)
        assert torch.equal(run(host, model), want)


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


def gradients(host: Host, model: nn.Module, runs: nn.Module | None = None) -> tuple[Tensor, dict[str, Tensor]]:
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


def checkpointing_is_equal(case: Case, host: Host) -> None:
    """Gradient checkpointing changes neither outputs nor gradients."""
    model, other = case.trained(host), case.trained(host)
    out, want = gradients(host, model)
    again, got = gradients(host, other, host.checkpointed(other))
    assert_close(again, out, host.reduction)  # to the bit but for T5, which attends by another kernel then
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
    assert len({(path, d.site) for path, _, _, d in stacks}) == len(stacks)  # so every base is a host's own
    for path, _, _, delta in stacks:
        host_module = model.get_submodule(path)
        host_module.register_forward_pre_hook(lambda *_, p=path: calls.update([f"{p} host"]))
        delta.register_forward_pre_hook(watch(f"{path} {delta.site}", delta), with_kwargs=True)
    for strength in (1.0, 0.5):
        calls.clear()
        with dt.active(model, default=strength):
            run(host, model)
        for path, _, _, delta in stacks:
            key = f"{path} {delta.site}"
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
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    _, got = gradients(host, model, compiled)
    assert_close(run(host, compiled), called, host.reduction)
    assert_gradients_close(got, want, host.reduction)


LAWS: tuple[Law, ...] = (
    identity_at_start,
    plan_changes_nothing,
    heads_are_left_alone,
    fold_equals_call,
    merge_is_for_good,
    strength_zero_is_the_base,
    strengths_between,
    eject_restores,
    state_dict_keeps_the_base,
    load_of_save,
    copies,
    modes_agree,
    only_deltas_get_gradients,
    checkpointing_is_equal,
    base_runs_once,
    padding_is_invisible,
    cache_is_invisible,
    parameters_are_fp32,
)


def holds_on(law: Law, host: Host) -> bool:
    """Whether a law says anything of this host: not every one can be padded, or generates."""
    needs = {padding_is_invisible: host.pads, cache_is_invisible: host.generates}
    return needs.get(law, True)
