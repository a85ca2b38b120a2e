"""The base is all of it, buffers too: what is frozen stays as it is, and a file knows the base it was made on."""

from __future__ import annotations

import copy
import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as serialise
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import deltatune as dt
from deltatune.deltafile import canonical, checksum, read
from deltatune.fingerprint import COLUMNS, WIDTH, columns, digest
from deltatune.io import first_fingerprint
from tests.laws import image
from tests.support.cases import shaken
from tests.support.hosts import Bert, Llama

pytestmark = pytest.mark.law
LLAMA, BERT = Llama(), Bert()


class Averaged(nn.Module):
    """x less a running mean that it moves in training, in place or by a new tensor."""

    def __init__(self, in_place: bool):
        super().__init__()
        self.in_place = in_place
        self.register_buffer("mean", torch.zeros(4))
        self.mean: Tensor
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        y = (x - self.mean) * self.scale
        if self.training and self.in_place:
            self.mean.mul_(0.9).add_(0.1 * x.detach().flatten(0, -2).mean(0))
        elif self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().flatten(0, -2).mean(0)
        return y


class Turned(nn.Module):
    """A norm of feature maps, (B, C) as it is and (B, C, T) for those that need it."""

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x[:, :, None].expand(-1, -1, 3)).mean(-1)


MOVING: dict[str, Callable[[], nn.Module]] = {
    "batch norm": lambda: nn.BatchNorm1d(4),
    "batch norm by averages": lambda: nn.BatchNorm1d(4, momentum=None),
    "instance norm": lambda: Turned(nn.InstanceNorm1d(4, track_running_stats=True)),
    "spectral norm": lambda: spectral_norm(nn.Linear(4, 4)),
    "average in place": lambda: Averaged(True),
    "average anew": lambda: Averaged(False),
}


def moving(kind: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), MOVING[kind](), nn.Linear(4, 2)), torch.randn(64, 4) * 3 + 1


def buffers(model: nn.Module) -> dict[str, Tensor]:
    return {n: b.clone() for n, b in model.named_buffers() if "_deltas" not in n}


def stepped(model: nn.Module, z: Tensor) -> None:
    model.train()
    for _ in range(2):
        model(z).square().sum().backward()
        with torch.no_grad():
            for _, p in dt.parameters(model):
                if p.grad is not None:
                    p.sub_(1e-4 * p.grad)
        model.zero_grad()


@pytest.mark.parametrize("kind", MOVING)
def test_frozen_is_frozen(kind: str, tmp_path: Path) -> None:
    """Training a delta moves no buffer of the base; the file gives the same function, eject gives the old one back."""
    model, z = moving(kind)
    base, before = copy.deepcopy(model).eval(), image(model)
    plain = base(z).detach()
    dt.inject(model, dt.LoRA.on("2", rank=1))
    still = buffers(model)
    for again in (model, copy.deepcopy(model), pickle.loads(pickle.dumps(model)) if "spectral" not in kind else model):
        stepped(again, z)
        assert all(torch.equal(b, still[n]) for n, b in buffers(again).items())
    dt.inject(model, dt.IA3.on("0"), name="off")
    dt.use(model, "default")
    stepped(model, z)
    dt.save(model, tmp_path / "d")
    want = model.eval()(z).detach()
    dt.load(base, tmp_path / "d")
    assert torch.equal(base(z), want) and not torch.equal(want, plain)
    dt.eject(model)
    assert image(model) == before and torch.equal(model(z), plain)


@pytest.mark.parametrize("kind", ["batch norm", "batch norm by averages", "instance norm"])
def test_frozen_norms_run_with_their_stored_statistics(kind: str) -> None:
    model, z = moving(kind)
    dt.inject(model, dt.LoRA.on("2", rank=1))
    shaken(model)
    assert torch.equal(model.train()(z), model.eval()(z))


@pytest.mark.parametrize("kind", MOVING)
def test_statistics_travel_with_the_delta_where_asked(kind: str, tmp_path: Path) -> None:
    model, z = moving(kind)
    where = "1.norm" if kind == "instance norm" else "1.parametrizations.weight.0" if "spectral" in kind else "1"
    base, before = copy.deepcopy(model).eval(), image(model)
    alone, plain = copy.deepcopy(model), base(z).detach()
    still = buffers(model)
    dt.inject(model, dt.LoRA.on("2", rank=1), dt.Statistics.on(where))
    model.train()(z)
    alone.train()(z)  # statistics of the plain model move as torch moves them
    want = model.eval()(z).detach()
    assert torch.allclose(want, alone.eval()(z), atol=1e-6) and not torch.allclose(want, plain)
    assert all(torch.equal(b, still[n]) for n, b in buffers(model).items())
    dt.save(model, tmp_path / "d")
    dt.load(base, tmp_path / "d")
    assert torch.equal(base(z), want)
    with dt.active(base):
        assert torch.equal(base(z), plain)
        base.train()(z)
        base.eval()
    assert torch.equal(base(z), want)
    with pytest.raises(dt.NotFoldable, match=rf"^{where}: running statistics are no weights"):
        dt.merge(model)
    dt.eject(model)
    assert image(model) == before and torch.equal(model(z), plain)


def test_usual_sites_of_statistics() -> None:
    model, _ = moving("batch norm")
    assert [row.path for row in dt.plan(model, dt.Statistics.on()).rows] == ["1"]
    with pytest.raises(dt.NoMatch, match="no norm with running statistics"):
        dt.plan(LLAMA.model(), dt.Statistics.on())


@pytest.mark.parametrize("kind", ["batch norm", "average in place"])
def test_buffers_that_were_left_free_are_saved(kind: str, tmp_path: Path) -> None:
    model, z = moving(kind)
    base = copy.deepcopy(model).eval()
    dt.inject(model, dt.LoRA.on("2", rank=1), freeze=False)
    model.train()(z)
    with pytest.warns(
        UserWarning, match=r"tensors of the base changed since the injection, first 1\.\w+: they are saved"
    ):
        dt.save(model, tmp_path / "d")
    want = model.eval()(z)
    dt.load(base, tmp_path / "d")
    assert torch.equal(base(z), want)


@pytest.mark.parametrize("kind", MOVING)
def test_diff_takes_buffers(kind: str) -> None:
    if "spectral" in kind:
        pytest.skip("a parametrised weight's original is no parameter of the layer that diff compares")
    tuned, z = moving(kind)
    base = copy.deepcopy(tuned)
    tuned.train()(z)
    want = tuned.eval()(z).detach()
    dt.diff(tuned, base.eval())
    assert torch.allclose(base(z), want, atol=1e-6)


# --- the fingerprint


def saved(model: nn.Module, path: Path, *rules: dt.Rule) -> Path:
    dt.inject(model, *(rules or (dt.LoRA.on(rank=1),)))
    dt.save(shaken(model), path)
    return path


def changed(name: str, change: Callable[[Tensor], Any]) -> nn.Module:
    model = LLAMA.model()
    with torch.no_grad():
        change(model.get_parameter(name))
    return model


def set_(index: Any, value: float) -> Callable[[Tensor], Any]:
    return lambda p: p.__setitem__(index, value)


def swapped(p: Tensor, a: Any, b: Any) -> None:
    kept = p[a].clone()
    p[a] = p[b]
    p[b] = kept


CHANGES: dict[str, tuple[str, Callable[[Tensor], Any]]] = {
    "one value": ("model.layers.1.mlp.up_proj.weight", set_((17, 3), 0.125)),
    "the last value": ("lm_head.weight", set_((-1, -1), 0.125)),
    "one bit": ("model.norm.weight", lambda p: p.view(torch.int32)[5].bitwise_xor_(1)),
    "two signs": ("model.layers.0.self_attn.q_proj.weight", lambda p: p[[3, 9], 7].neg_() + swapped(p, 3, 9)),
    "all signs": ("model.layers.0.self_attn.q_proj.weight", lambda p: p.neg_()),
    "last rows": ("model.embed_tokens.weight", set_(slice(-2, None), 9.0)),
    "rows exchanged": ("model.embed_tokens.weight", lambda p: swapped(p, 20, 30)),
    "columns exchanged": ("model.embed_tokens.weight", lambda p: swapped(p, (slice(None), 2), (slice(None), 3))),
    "values exchanged": ("model.layers.0.mlp.down_proj.weight", lambda p: swapped(p, (0, 0), (0, 1))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_the_base_is_seen(change: str, tmp_path: Path) -> None:
    path = saved(LLAMA.model(), tmp_path / "d")
    dt.load(LLAMA.model(), path)
    if change == "two signs":
        model = LLAMA.model()
        with torch.no_grad():
            p = model.get_parameter(CHANGES[change][0])
            p[3, 7], p[9, 7] = -p[3, 7], -p[9, 7]
    else:
        model = changed(*CHANGES[change])
    with pytest.raises(dt.BaseMismatch, match="other weights"):
        dt.load(model, path)


def test_a_buffer_is_part_of_the_base(tmp_path: Path) -> None:
    model, z = moving("batch norm")
    other = copy.deepcopy(model).train()
    other(z)
    path = saved(model, tmp_path / "d", dt.LoRA.on("0"))
    with pytest.raises(dt.BaseMismatch, match="other weights"):
        dt.load(other, path)


HALVES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@pytest.mark.parametrize("trained", HALVES)
@pytest.mark.parametrize("original", [torch.float32, torch.bfloat16])
def test_one_base_in_any_dtype(trained: torch.dtype, original: torch.dtype, tmp_path: Path) -> None:
    """A base in another dtype is the same base; one with other rows in another dtype is not."""
    path = saved(LLAMA.model().to(original).to(trained), tmp_path / "d")
    for here in HALVES:
        dt.load(LLAMA.model().to(original).to(here), path)
        for change in ("last rows", "all signs"):
            with pytest.raises(dt.BaseMismatch, match="other weights"):
                dt.load(changed(*CHANGES[change]).to(original).to(here), path)


def test_neighbours_do_not_matter(tmp_path: Path) -> None:
    model = BERT.model()
    dt.inject(model, dt.Head.on(), name="neighbour")
    dt.inject(model, dt.LoRA.on(rank=1), name="mine")
    dt.inject(model, dt.Full.on("bert.embeddings.*_embeddings"), name="later")
    dt.save(shaken(model), tmp_path / "d", name="mine")
    fresh = BERT.model()
    dt.load(fresh, tmp_path / "d")
    other = BERT.model()
    dt.inject(other, dt.Head.on(), name="neighbour")
    dt.load(shaken(other), tmp_path / "d")


class Packed(nn.Linear):
    """Codes that the first call lays out anew, as bitsandbytes does on a CPU."""

    def __init__(self, into: int, out: int):
        super().__init__(into, out)
        codes = torch.arange(into * out, dtype=torch.uint8).view(out, into)
        self.weight = Codes(codes)  # type: ignore[assignment]
        self.packed = False

    def forward(self, x: Tensor) -> Tensor:
        if not self.packed:
            self.weight.data, self.packed = self.weight.data.flatten()[:, None].contiguous(), True
        return x @ self.weight.data.view(self.out_features, -1).float().T / 255


class Codes(nn.Parameter):
    def __new__(cls, data: Tensor) -> Codes:
        return super().__new__(cls, data, requires_grad=False)  # type: ignore[return-value]


class Opaque(Tensor):
    """A weight of its own kind, whose bytes nobody may read, as torchao's are."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is nn.functional.linear:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*(a.as_subclass(Tensor) if isinstance(a, Tensor) else a for a in args), **(kwargs or {}))
        if getattr(func, "__name__", "") in ("view", "reshape", "contiguous", "cpu", "numpy", "sum", "to"):
            raise NotImplementedError(func)
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("kind", ["repacked", "subclassed"])
def test_weights_that_are_no_plain_numbers_do_not_matter(kind: str, tmp_path: Path) -> None:
    def built() -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), Packed(4, 4) if kind == "repacked" else nn.Linear(4, 4))
        if kind == "subclassed":
            model[1].weight = nn.Parameter(model[1].weight.detach().as_subclass(Opaque), requires_grad=False)
        return model

    model, z = built(), torch.randn(3, 4)
    dt.inject(model, dt.LoRA.on("0|1", rank=1))
    shaken(model)
    want = model(z)
    dt.save(model, tmp_path / "d")
    for called in (False, True):
        again = built()
        if called:
            again(z)
        dt.load(again, tmp_path / "d")
        assert torch.equal(again(z), want)


def test_parts_know_the_base_of_the_whole(tmp_path: Path) -> None:
    """Injected into the whole and saved from a part, the file is for that part; and the other way round."""
    model = LLAMA.model()
    dt.inject(model, dt.LoRA.on("model.layers.0.*_proj", rank=1))
    shaken(model)
    part = model.get_submodule("model.layers.0")
    dt.save(part, tmp_path / "part")
    fresh = LLAMA.model().get_submodule("model.layers.0")
    dt.load(fresh, tmp_path / "part")
    dt.load(
        LLAMA.model().get_submodule("model.layers.0"), saved(fresh_part(), tmp_path / "d", dt.LoRA.on("mlp.*_proj"))
    )
    whole = LLAMA.model()
    dt.inject(whole.get_submodule("model.layers.0"), dt.LoRA.on("mlp.*_proj", rank=1))
    dt.save(shaken(whole), tmp_path / "whole")
    dt.load(LLAMA.model(), tmp_path / "whole")


def fresh_part() -> nn.Module:
    return LLAMA.model().get_submodule("model.layers.0")


def test_files_of_the_first_format_still_load(tmp_path: Path) -> None:
    path = saved(LLAMA.model(), tmp_path / "d")
    about, tensors = read(path)
    about |= {"format": 1, "base": first_fingerprint(LLAMA.model(), {})}
    about["tensors"] = {k: checksum(t) for k, t in tensors.items()}
    about["checksum"] = hashlib.sha256(canonical(about).encode()).hexdigest()
    path.write_bytes(serialise(tensors, {"deltatune": canonical(about)}))
    dt.load(LLAMA.model().to(torch.bfloat16), path)
    with pytest.raises(dt.BaseMismatch, match="other weights"):
        dt.load(changed("model.norm.weight", lambda p: p.add_(1)), path)


def test_a_digest_is_exact_and_the_same_everywhere() -> None:
    """A product of bytes is summed exactly; the numbers are fixed; a view is its values."""
    data = torch.arange(3 * WIDTH + 5, dtype=torch.int64).mul(2654435761).bitwise_right_shift(7).to(torch.uint8)
    rows = data[: 3 * WIDTH].view(torch.int8).view(3, WIDTH)
    assert torch.equal(torch._int_mm(rows, columns("cpu")).long(), rows.long() @ columns("cpu").long())
    assert columns("cpu").shape == (WIDTH, COLUMNS) and int(columns("cpu").min()) == -127
    assert digest(data) == "e3346bb5aa01ed18"
    grown = torch.randn(40, 300)
    assert digest(grown.T) == digest(grown.T.contiguous()) != digest(grown)
