"""PEFT's layers as arms: the same function of the same parameters, through the same run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

import deltatune as dt
from tests.support.own_tables import tables_as_before  # noqa: F401
from tests.support.runs import ROOT, overrides
from tests.support.small import llama
from tests.support.tolerance import agree, reduction


@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_with_the_same_parameters_ours_and_theirs_give_the_same_loss_and_gradients(name):
    from benchmarks.peft_arms import PeftIA3, PeftLoRA  # importing them adds them to the tables

    pairs = {"lora": (dt.LoRA, PeftLoRA, {"rank": 4, "alpha": 8}), "ia3": (dt.IA3, PeftIA3, {})}
    *methods, hparams = pairs[name]
    ids = torch.randint(5, 40, (2, 9), generator=torch.Generator().manual_seed(0))
    outcomes = []
    for method in methods:
        torch.manual_seed(0)
        model = llama().requires_grad_(False)
        dt.inject(model, method.on(**hparams))
        parameters = [p for _, p in dt.parameters(model)]
        numbers = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for p in parameters:
                drawn = torch.randn(p.numel(), generator=numbers) * 0.1
                p.copy_(drawn.reshape(p.shape) + (1 if name == "ia3" else 0))
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        outcomes.append([loss.detach(), *(p.grad.flatten() for p in parameters if p.grad is not None)])
    assert len(outcomes[0]) == len(outcomes[1]) > 1
    agree(*outcomes, 2 * reduction(model), ids.numel())


@pytest.mark.parametrize("method", ["peft_lora", "peft_ia3"])
def test_they_go_through_a_whole_run(tmp_path, method):
    words = overrides(tmp_path, "plugins=[benchmarks.peft_arms]", f"method={method}")
    subprocess.run([sys.executable, "-m", "experiments.run", *words], cwd=ROOT, check=True, capture_output=True)
    (file,) = (tmp_path / "runs").glob("*/result.json")
    result = json.loads(file.read_text())
    assert result["status"] == "complete"
    assert result["parameters"]["trainable"] > 0
