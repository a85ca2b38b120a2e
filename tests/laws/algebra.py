"""Laws of the algebra: what injection, folding, strengths, removal, saving and copying leave as it was.

Outputs are compared to the last bit in train mode (dropout is 0) without gradients: in eval, torch's encoder layer
computes in another order as long as it carries no delta.
"""

from __future__ import annotations

import copy
import io
import pickle
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import deltatune as dt
from deltatune.blocks import output_head
from deltatune.host import deltas, hosts, to_run
from tests.support.cases import Case, assert_changed, assert_close, base_output, front, run
from tests.support.hosts import Host


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
            assert not any(to_run(h)["default"] for _, h in hosts(model))
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
    model = case.trained(host)
    full = run(host, model)
    with dt.active(model, default=1 - 2.0**-20):
        assert_close(run(host, model), full, host.reduction)
    if not front(model):  # the reserved ids of a prompt stand for nothing at strength 0
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
    assert all("_deltas.default" in k for k in after.keys() - before.keys())


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
    """deepcopy, pickle and torch.save give equal, independent models that carry their deltas at their strengths."""
    model = case.trained(host)
    dt.use(model, default=0.5)
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
