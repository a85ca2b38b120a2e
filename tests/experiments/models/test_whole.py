"""A checkpoint that lacks weights, or has others, is refused: they would stay random."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from experiments.config.schema import ModelConfig, Pooling
from experiments.models.load import load_model
from experiments.models.table import ModelError
from experiments.models.tokenizer import byte_tokenizer

SMALL: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}


def loaded(folder: Path, model: Any, change: Callable[[dict[str, Any]], Any], pooling: Pooling = Pooling.own) -> Any:
    """The model that is loaded of a checkpoint whose weights were changed."""
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})
    config = ModelConfig(name="hf", path=str(folder), pooling=pooling)
    outputs = () if isinstance(model, hf.LlamaPreTrainedModel) else ("a", "b")
    return load_model(config, dtype=torch.float32, device=torch.device("cpu"), outputs=outputs).model


def lacking(word: str) -> Callable[[dict[str, Any]], None]:
    def change(weights: dict[str, Any]) -> None:
        for name in [name for name in weights if word in name]:
            del weights[name]

    return change


def cut(weights: dict[str, Any]) -> None:
    name = next(name for name in weights if "q_proj" in name)
    weights[name] = weights[name][:-2].contiguous()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lacking("q_proj"), "1 of the weights of LlamaForCausalLM are lacking .*: model.layers.0.self_attn.q_proj"),
        (lacking("lm_head"), "are lacking and would stay random: lm_head.weight; save the whole model"),
        (cut, "have another shape in its files and would stay random: model.layers.0.self_attn.q_proj"),
    ],
)
def test_a_language_model_is_read_whole(tmp_path: Path, change: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        loaded(tmp_path, hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL)), change)


@pytest.mark.parametrize("pooling", list(Pooling))
def test_of_an_encoder_the_head_alone_is_new(tmp_path: Path, pooling: Pooling) -> None:
    with pytest.raises(ModelError, match=r"are lacking .*query.bias, "):
        loaded(tmp_path / "a", hf.BertModel(hf.BertConfig(**SMALL)), lacking("query"), pooling)
    made = loaded(tmp_path / "b", hf.BertModel(hf.BertConfig(**SMALL)), lacking("none"), pooling)
    assert made.classifier.weight.shape[0] == 2
    five = hf.BertForSequenceClassification(hf.BertConfig(**{**SMALL, "num_labels": 5}))
    assert loaded(tmp_path / "c", five, lacking("none"), pooling).classifier.weight.shape[0] == 2


def test_a_pooler_that_a_checkpoint_lacks_need_not_be_read(tmp_path: Path) -> None:
    model = hf.BertForMaskedLM(hf.BertConfig(**SMALL))
    with pytest.raises(ModelError, match=r"bert.pooler.dense.bias, bert.pooler.dense.weight; say model.pooling=mean"):
        loaded(tmp_path, model, lacking("none"))
    assert loaded(tmp_path, model, lacking("none"), Pooling.mean).classifier is not None


def test_a_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    loaded(tmp_path, hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL)), lacking("none"))
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match=rf"(?s){tmp_path}.* cannot be read; fetch or save"):
        load_model(ModelConfig(name="hf", path=str(tmp_path)), dtype=torch.float32, device=torch.device("cpu"))
