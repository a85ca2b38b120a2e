"""What the frame costs on a model of SmolLM2-135M's shapes, LoRA on every linear layer: printed, and bounded loosely.

The targets are 0.1 s for inject, save and load each, on a machine at rest; the bounds leave room for a busy one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import deltatune as dt


def best_s(verb: Callable[[], object], after: Callable[[], object], repeats: int = 5) -> float:
    """The least seconds of the verb; `after` undoes it."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        verb()
        times.append(time.perf_counter() - began)
        after()
    return min(times)


@pytest.mark.slow
def test_inject_save_and_load(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    path = tmp_path / "delta.safetensors"
    inject_s = best_s(lambda: dt.inject(model, dt.LoRA.on(rank=8)), lambda: dt.eject(model))
    dt.inject(model, dt.LoRA.on(rank=8))
    save_s = best_s(lambda: dt.save(model, path), lambda: None)
    dt.eject(model)
    load_s = best_s(lambda: dt.load(model, path), lambda: dt.eject(model))
    with capsys.disabled():
        print(f"\ninject {inject_s:.3f} s, save {save_s:.3f} s, load {load_s:.3f} s")
    assert max(inject_s, save_s, load_s) < 0.5
