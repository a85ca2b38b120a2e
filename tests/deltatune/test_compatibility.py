"""Deltas in models that accelerate holds, that come to life after the meta device, and that transformers trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
import transformers
from torch import Tensor, nn

import deltatune as dt
from deltatune.host import hosts
from tests.support.cases import assert_close, run, shaken
from tests.support.hosts import Llama, ids

LLAMA = Llama()
RULES: dict[str, Callable[[], dt.Rule]] = {
    "LoRA": lambda: dt.LoRA.on(rank=2),
    "DoRA": lambda: dt.DoRA.on(rank=2),
    "IA3": dt.IA3.on,
    "BitFit": dt.BitFit.on,
    "Full": lambda: dt.Full.on("*norm"),
    "Prefix": lambda: dt.Prefix.on(length=2),
}


def tuned(rule: dt.Rule) -> nn.Module:
    model = LLAMA.model()
    dt.inject(model, rule)
    return shaken(model)


def dispatched(model: nn.Module) -> nn.Module:
    return accelerate.dispatch_model(model, {"": "cpu"}, force_hooks=True)


@pytest.mark.parametrize("rule", RULES)
def test_a_device_map_before_and_after(rule: str, tmp_path: Path) -> None:
    model = tuned(RULES[rule]())
    want = run(LLAMA, model)
    dt.save(model, tmp_path / "d")
    before = dispatched(LLAMA.model())
    dt.load(before, tmp_path / "d")
    after = LLAMA.model()
    dt.load(after, tmp_path / "d")
    for model in (before, dispatched(after)):
        assert_close(run(LLAMA, model), want, LLAMA.reduction)
        dt.verify(model, **LLAMA.batch())
        dt.save(model, tmp_path / "e")
        assert (tmp_path / "d").read_bytes() == (tmp_path / "e").read_bytes()
        dt.eject(model)
        assert_close(run(LLAMA, model), run(LLAMA, LLAMA.model()), LLAMA.reduction)


@pytest.mark.parametrize("rule", RULES)
def test_offloaded_weights(rule: str, tmp_path: Path) -> None:
    """Injected first, all works; injected into weights that are elsewhere, it is refused by name."""
    model = tuned(RULES[rule]())
    want = run(LLAMA, model)
    dt.save(model, tmp_path / "d")
    accelerate.cpu_offload(model, execution_device="cpu")
    assert_close(run(LLAMA, model), want, LLAMA.reduction)
    dt.save(model, tmp_path / "e")
    assert (tmp_path / "d").read_bytes() == (tmp_path / "e").read_bytes()
    away = LLAMA.model()
    accelerate.cpu_offload(away, execution_device="cpu")
    message = r"put deltas in before offloading|load before offloading"
    with pytest.raises(dt.DeltaError, match=message):
        dt.load(away, tmp_path / "d")
    assert not hosts(away)


@pytest.mark.parametrize("rule", [r for r in RULES if r != "DoRA"])
def test_injected_on_the_meta_device(rule: str, tmp_path: Path) -> None:
    """What is made there starts when the model has values: at the identity, or with what a state dict brings."""
    base = LLAMA.model()
    with torch.device("meta"):
        model = LLAMA.build()
    dt.inject(model, RULES[rule]())
    with pytest.raises(dt.DeltaError, match=r"on the meta device|has no values yet"):
        dt.save(model, tmp_path / "d")
    model.to_empty(device="cpu")
    model.load_state_dict(base.state_dict(), strict=False)
    model.model.rotary_emb = base.model.rotary_emb  # type: ignore[union-attr]
    with pytest.raises(dt.DeltaError, match="has no values yet; run the materialised model once"):
        dt.save(model, tmp_path / "d")
    assert torch.equal(run(LLAMA, model.train()), run(LLAMA, base))
    called = run(LLAMA, shaken(model))
    dt.save(model, tmp_path / "d")
    dt.load(base, tmp_path / "d")
    assert_close(run(LLAMA, base), called, LLAMA.reduction)
    with torch.device("meta"):
        bare = LLAMA.build()
    with pytest.raises(dt.DeltaError, match="is on the meta device; materialise it, then load"):
        dt.load(bare, tmp_path / "d")


class Rows(torch.utils.data.Dataset[dict[str, Tensor]]):
    def __len__(self) -> int:
        return 16

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        row = ids(16, 6)[i]
        return {"input_ids": row, "labels": row}


def trainer(folder: Path, steps: int, **more: Any) -> transformers.Trainer:
    torch.manual_seed(0)
    model = LLAMA.model()
    dt.inject(model, dt.LoRA.on(rank=2))
    settings = transformers.TrainingArguments(
        str(folder), max_steps=steps, save_steps=2, learning_rate=1e-2, per_device_train_batch_size=4, report_to=[],
        use_cpu=True, disable_tqdm=True, seed=0, logging_steps=1, lr_scheduler_type="constant", **more,
    )  # fmt: skip
    return transformers.Trainer(model, settings, train_dataset=Rows(), eval_dataset=Rows())


@pytest.mark.filterwarnings("ignore")  # accelerate's and transformers' own
def test_a_trainer_stops_resumes_and_keeps_the_best(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", 4)
    whole.train()
    trainer(tmp_path / "parts", 2).train()
    resumed = trainer(tmp_path / "parts", 4)
    resumed.train(resume_from_checkpoint=str(tmp_path / "parts" / "checkpoint-2"))
    for (name, p), (_, q) in zip(dt.parameters(whole.model), dt.parameters(resumed.model)):
        assert torch.equal(p, q), name
    best = trainer(
        tmp_path / "best", 4, eval_strategy="steps", eval_steps=2, load_best_model_at_end=True,
        metric_for_best_model="loss",
    )  # fmt: skip
    best.train()
    losses = [each["eval_loss"] for each in best.state.log_history if "eval_loss" in each]
    assert best.evaluate()["eval_loss"] == pytest.approx(min(losses), rel=1e-6)
    dt.save(best.model, tmp_path / "d")
    fresh = LLAMA.model()
    dt.load(fresh, tmp_path / "d")
    assert_close(run(LLAMA, fresh), run(LLAMA, best.model.train()), LLAMA.reduction)
