"""Weights that are read and never called: a change of parameters takes effect, a delta around a call is refused."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import deltatune as dt
from deltatune.hosts import modules
from deltatune.maps import original
from deltatune.structure import structure
from tests.support.architectures import build

IDS = {"input_ids": torch.randint(3, 120, (2, 8), generator=torch.Generator().manual_seed(0))}
SOUND = {"input_values": torch.randn(1, 400, generator=torch.Generator().manual_seed(0))}
READ_IDS = ("mamba", "mamba2", "jamba", "deberta", "deberta_v2", "qwen3_next", "zamba2", "longcat")
READ = dict.fromkeys(READ_IDS, IDS) | {"wavlm": SOUND}
each = pytest.mark.parametrize("name", READ)


def logits(model: nn.Module, name: str) -> Tensor:
    with torch.no_grad():
        return model(**READ[name]).logits


@each
def test_diff_gives_the_tuned_outputs(name: str) -> None:
    base, tuned = build(name), build(name)
    with torch.no_grad():
        for p in tuned.parameters():
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    want, before = logits(tuned, name), logits(base, name)
    classes = {p: type(m) for p, m in modules(base)}
    dt.diff(tuned, base)
    called = logits(base, name)
    torch.testing.assert_close(called, want, rtol=1e-4, atol=1e-4)
    dt.use(base)
    assert torch.equal(logits(base, name), before)
    dt.use(base, "default")
    other = copy.deepcopy(base)
    if name != "wavlm":  # torch pickles no parametrised modules
        other = pickle.loads(pickle.dumps(other))
    assert torch.equal(logits(other, name), called)
    with dt.merged(base):
        torch.testing.assert_close(logits(base, name), called, rtol=1e-4, atol=1e-4)
    dt.eject(base)
    assert torch.equal(logits(base, name), before)
    assert {p: type(m) for p, m in modules(base)} == classes


@each
@pytest.mark.filterwarnings("ignore:.*merged biases stand:UserWarning")
@pytest.mark.parametrize("rule", [dt.Full.on(), dt.BitFit.on()], ids=["Full", "BitFit"])
def test_every_parameter_delta_is_reached(name: str, rule: dt.Rule, tmp_path: Path) -> None:
    model = build(name)
    dt.inject(model, rule)
    if name not in ("zamba2", "wavlm"):  # one holds adapters that it never runs, the other a mask for training
        dt.verify(model, **READ[name])
    with torch.no_grad():
        for _, p in dt.parameters(model):
            p += 0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()))
    want = logits(model, name)
    dt.save(model, tmp_path / "delta.safetensors")
    fresh = build(name)
    dt.load(fresh, tmp_path / "delta.safetensors")
    assert torch.equal(logits(fresh, name), want)
    dt.merge(fresh)
    torch.testing.assert_close(logits(fresh, name), want, rtol=1e-4, atol=1e-4)


def test_a_delta_around_a_call_that_never_comes_is_refused_and_told() -> None:
    model = build("mamba")
    with pytest.raises(dt.NotReached, match=r"layers\.0\.mixer\.dt_proj: .*mixer reads its weights and never calls it"):
        dt.inject(model, dt.LoRA.on("*.dt_proj"))
    plan = dt.plan(model, dt.LoRA.on(rank=2))
    assert not any(r.path.endswith(("dt_proj", "conv1d")) for r in plan.rows)
    text = "left out: backbone.layers.*.mixer.conv1d, backbone.layers.*.mixer.dt_proj (4)"
    assert any(line.startswith(text) and "mixer reads its weights" in line for line in plan.notes), plan.notes
    assert text in str(plan)


def test_a_matrix_that_is_read_is_reached_by_its_name() -> None:
    model = build("mamba")
    before = logits(model, "mamba")
    dt.inject(model, dt.LoRA.on("*.dt_proj.weight", rank=2))
    dt.verify(model, **IDS)
    assert torch.equal(logits(model, "mamba"), before)
    with torch.no_grad():
        for _, p in dt.parameters(model):
            p += 0.1
    called = logits(model, "mamba")
    assert not torch.allclose(called, before)
    dt.merge(model)
    torch.testing.assert_close(logits(model, "mamba"), called)


class Reader(nn.Module):
    """Reads `table` and never calls it; calls `both`, and reads it too."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.both, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.both(x) @ self.table.weight) + x @ self.both.weight


def test_what_is_called_and_read_changes_once_in_both() -> None:
    torch.manual_seed(0)
    model, x = Reader(), torch.randn(3, 4)
    tuned = copy.deepcopy(model)
    with torch.no_grad():
        for p in tuned.parameters():
            p += 0.5
    structure(model, {"x": x})  # a model of one's own is learned from an example
    dt.diff(tuned, model)
    torch.testing.assert_close(model(x), tuned(x))
    dt.eject(model)
    assert all(type(m) is original(m) for m in model.modules())


def test_without_an_example_the_plan_says_that_it_guesses() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    assert "guessed from names and types (no example given); give example=" in str(dt.plan(model, dt.LoRA.on(rank=1)))
    assert dt.plan(model, dt.LoRA.on(rank=1), example={"input": torch.randn(1, 4)}).notes == ()
    assert dt.plan(model, dt.LoRA.on("0", rank=1)).notes == ()
