"""Spectra of ΔW: right on changes whose rank, size and new directions are known, and in whole runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import deltatune as dt
from experiments.evaluation.spectra import TOP, intruders, kind_of, left_vectors, measures, spectra
from experiments.models.weights import NAME
from experiments.store.files import read
from experiments.store.result import Complete
from experiments.store.schema import flat
from tests.support.runs import (
    classes,
    config,
    directory,
    overrides,
    own_cache_and_torch_settings,  # noqa: F401 - a fixture
    run,
)
from tests.support.small import llama


def orthogonal(n: int, seed: int) -> Tensor:
    torch.manual_seed(seed)
    return torch.linalg.qr(torch.randn(n, n, dtype=torch.float64)).Q


def cosines(n: int) -> Tensor:
    """The orthogonal matrix of the cosine transform, none of whose columns is near a unit vector."""
    i = torch.arange(n, dtype=torch.float64)
    columns = torch.cos(torch.pi * (i[:, None] + 0.5) * i[None, :] / n)
    return columns / columns.norm(dim=0)


def matrix(n: int = 24, k: int = 40, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A weight of known singular vectors, values 1, 0.95, … apart from one another; its left and right vectors."""
    left, right = orthogonal(n, seed), orthogonal(k, seed + 1)
    m = min(n, k)
    values = torch.linspace(1, 0.3, m, dtype=torch.float64)
    return left[:, :m] * values @ right[:, :m].T, left, right


@pytest.mark.parametrize(("n", "k"), [(24, 40), (40, 24), (24, 24)])
@pytest.mark.parametrize("rank", [1, 3])
def test_a_change_of_known_rank_and_size(n: int, k: int, rank: int):
    base, left, right = matrix(n, k)
    sizes = torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64)[:rank] / 100
    tuned = base + left[:, :rank] * sizes @ right[:, :rank].T
    found = measures(base, tuned)
    assert found["rank"] == rank
    assert found["norm"] == pytest.approx((sizes.norm() / base.norm()).item())
    assert found["stable_rank"] == pytest.approx((sizes.square().sum() / sizes[0] ** 2).item())
    share = sizes / sizes.sum()
    assert found["effective_rank"] == pytest.approx(torch.exp(-(share * share.log()).sum()).item())
    assert found["intruders"] == 0  # the change is along the base's own vectors


@pytest.mark.parametrize("count", [1, 2, 4])
def test_planted_intruders_are_counted(count: int):
    """New directions with values above the base's, each an even mixture of vectors that do not lead in the base."""
    base, left, right = matrix()
    mixed = left[:, 12:] @ cosines(12)[:, 1 : count + 1]
    sizes = torch.arange(5, 5 - count, -1)  # apart from one another: equal ones have no vectors of their own
    tuned = base + mixed * sizes @ right[:, 24 : 24 + count].T  # no row that the base has
    assert intruders(base, tuned) == count
    assert intruders(base, tuned, top=1) == 1
    assert intruders(base, 1.5 * base) == 0
    assert measures(base, tuned)["rank"] == count


def test_intruders_of_a_tall_matrix_may_leave_the_space_of_the_base():
    base, left, right = matrix(40, 24)
    tuned = base + 3 * left[:, 30:31] @ right[:, :1].T
    assert intruders(base, tuned) == 1
    vectors = left_vectors(base)
    assert vectors.shape == (40, 24)
    torch.testing.assert_close((vectors.T @ left[:, :24]).abs(), torch.eye(24, dtype=torch.float64), atol=1e-6, rtol=0)


def test_places_are_put_together_over_layers():
    assert kind_of("model.layers.13.self_attn.q_proj.weight") == "self_attn.q_proj"
    assert kind_of("bert.encoder.layer.2.attention.output.dense.weight") == "attention.output.dense"
    assert kind_of("model.embed_tokens.weight") == "model.embed_tokens"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loras_rank_is_its_own_whatever_the_models_dtype(dtype: torch.dtype):
    """Merged in bf16, the change would be of full rank by its rounding."""
    model: Any = llama().to(dtype=dtype)
    dt.inject(model, dt.LoRA.on(rank=2), name=NAME)
    with torch.no_grad():
        for _, p in dt.parameters(model, NAME):
            p.normal_(std=0.02)
    found = spectra(model)
    assert found["reason"] is None and found["all"]["rank"] == 2 and found["all"]["stable_rank"] <= 2
    assert {"self_attn.q_proj", "mlp.down_proj"} <= set(found["sites"])
    assert found["all"]["n_weights"] == sum(each["n_weights"] for each in found["sites"].values())
    assert all(each["n_weights"] == 2 for each in found["sites"].values())  # two layers


def spectra_of(tmp_path: Path, *more: str) -> dict[str, Any]:
    return run(config(*overrides(tmp_path, "eval.spectra=true", "forgetting.enabled=false", "optim.steps=4", *more)))[
        "spectra"
    ]


@pytest.mark.parametrize("method", ["lora", "ia3", "full", "dora"])
def test_a_run_has_the_spectra_of_its_change(tmp_path, method):
    found = spectra_of(tmp_path, f"method={method}")
    assert found["reason"] is None and 0 < found["all"]["norm"] < 10 and found["top"] == TOP
    assert all(1 <= each["stable_rank"] <= each["rank"] for each in found["sites"].values())
    whole = method == "full"
    assert any("embed_tokens" in kind for kind in found["sites"]) == whole


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("prefix", "changes the attention"),
        ("prompt", "left out"),
        ("adapter", "left out"),
        ("bitfit", "no matrix was changed"),
        ("none", "no matrix was changed"),
    ],
)
def test_a_method_without_a_change_of_weights_says_so(tmp_path, method, reason):
    found = spectra_of(tmp_path, f"method={method}")
    assert (found["all"], found["sites"]) == (None, {}) and reason in found["reason"]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_new_task_head_is_no_change(tmp_path, method):
    given = ("model=tiny_encoder", f"method={method}", "eval.spectra=true", "forgetting.enabled=false", "optim.steps=4")
    made = config(*overrides(tmp_path, *given, file=classes(tmp_path / "classes.jsonl")))
    found = run(made)["spectra"]
    assert found["all"]["n_weights"] > 0 and not any("classifier" in kind for kind in found["sites"])
    result = read(directory(made) / "result.json")
    assert isinstance(result, Complete) and flat(result)["delta_rank"] == found["all"]["rank"]
    assert json.loads((directory(made) / "result.json").read_text())["spectra"] == found


def test_nobody_asks_by_default(tmp_path):
    assert "spectra" not in run(config(*overrides(tmp_path, "forgetting.enabled=false")))
