"""A language model that reads what stands after a place is refused; what writes from what stands before is not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from experiments.models.causal import check_causal
from experiments.models.positions import Positions, positions_of
from experiments.models.table import ModelError

SIZES: dict[str, Any] = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
IDS = [5, 9, 5, 7, 11, 3, 8]


def sizes(**more: Any) -> dict[str, Any]:
    return {**SIZES, **more}


CAUSAL = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**sizes(intermediate_size=16))),
    "opt": lambda: hf.OPTForCausalLM(hf.OPTConfig(**sizes(ffn_dim=16, max_position_embeddings=32))),
    "bloom": lambda: hf.BloomForCausalLM(hf.BloomConfig(**sizes())),
    "mamba": lambda: hf.MambaForCausalLM(hf.MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1)),
    "mixtral": lambda: hf.MixtralForCausalLM(
        hf.MixtralConfig(**sizes(intermediate_size=16, num_key_value_heads=1, num_local_experts=4))
    ),
    "bert": lambda: hf.BertLMHeadModel(hf.BertConfig(**sizes(intermediate_size=16, is_decoder=True))),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", CAUSAL)
def test_a_causal_model_is_taken(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    check_causal(CAUSAL[name]().to(dtype).eval(), IDS, "hf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_sees_what_follows_is_refused(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    config = hf.XLNetConfig(vocab_size=64, d_model=16, n_layer=2, n_head=2, d_inner=16, initializer_range=0.5)
    made: Any = hf.XLNetLMHeadModel(config)
    model = made.to(dtype).eval()
    with pytest.raises(ModelError, match="XLNetLMHeadModel reads the tokens after a place"):
        check_causal(model, IDS, "hf")
    check_causal(model, [5, 5, 5], "hf")  # nothing could be told by these


def test_places_by_the_configurations_own_names() -> None:
    mpt = hf.MptForCausalLM(hf.MptConfig(vocab_size=64, d_model=16, n_heads=2, n_layers=1, max_seq_len=20))
    assert positions_of(mpt) == Positions(20, fixed=True)
    canine = hf.CanineModel(hf.CanineConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2))
    assert positions_of(canine) == Positions(16384, fixed=True)
