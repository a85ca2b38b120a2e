"""Which head and which loss a model gets, by transformers' own mapping of tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers as hf

from experiments.config.family import Family
from experiments.models.family import family_of
from experiments.models.load import commit_of
from experiments.models.table import ModelError
from experiments.models.tokenizer import CHATML, byte_tokenizer
from tests.support.runs import classes, config, overrides, own_cache_and_torch_settings, run, words  # noqa: F401

FAMILIES = {
    Family.decoder: ["Llama", "GPT2", "Gemma2", "OPT", "Mamba", "XLNet", "Bloom", "Qwen3", "ModernBertDecoder"],
    Family.encoder: [
        *("Bert", "Roberta", "XLMRoberta", "Camembert", "Deberta", "DebertaV2", "ModernBert", "DistilBert", "Albert"),
        *("Electra", "MPNet", "XLM", "RemBert", "BigBird", "Data2VecText", "Funnel", "FNet", "Canine", "Luke"),
    ],
    Family.encoder_decoder: [
        "T5",
        "MT5",
        "Bart",
        "MBart",
        "Pegasus",
        "M2M100",
        "LED",
        "LongT5",
        "ProphetNet",
        "Marian",
    ],
}
TABLE = [(name, family) for family, names in FAMILIES.items() for name in names]


@pytest.mark.parametrize(("name", "family"), TABLE)
def test_the_family_is_that_of_the_mapping(name: str, family: Family) -> None:
    assert family_of(getattr(hf, f"{name}Config")()) is family


def test_an_encoder_that_says_it_is_a_decoder_is_one() -> None:
    assert family_of(hf.BertConfig(is_decoder=True)) is Family.decoder
    assert family_of(hf.BartConfig(is_encoder_decoder=False, is_decoder=True)) is Family.decoder


@pytest.mark.parametrize("name", ["Whisper", "ViT", "CLIP", "Wav2Vec2", "Detr"])
def test_what_reads_no_text_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=rf"{name}Config .* reads and writes no text"):
        family_of(getattr(hf, f"{name}Config")())


def test_the_commit_of_a_hub_id_is_where_its_files_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "models--own--small" / "snapshots" / commit
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    refs = tmp_path / "models--own--small" / "refs"
    refs.mkdir()
    (refs / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert commit_of("own/small", None) == commit_of("own/small", commit) == commit
    assert commit_of(str(tmp_path), None) is None


SMALL = {"vocab_size": 320, "max_position_embeddings": 200}
BERT = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, **SMALL}
MODELS: dict[str, tuple[Any, dict[str, Any]]] = {
    "xlm-roberta": (hf.XLMRobertaModel, BERT),
    "camembert": (hf.CamembertModel, BERT),
    "deberta": (hf.DebertaModel, BERT),
    "modernbert": (hf.ModernBertModel, {**BERT, "pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2}),
    "fnet": (hf.FNetModel, {**BERT, "type_vocab_size": 2}),
    "t5": (hf.T5ForConditionalGeneration, {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 1, "num_heads": 2}),
    "bart": (hf.BartForConditionalGeneration, {
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16, **SMALL,
    }),
}  # fmt: skip


def saved(name: str, folder: Path, **more: Any) -> Path:
    """A checkpoint of random weights with the tokenizer of bytes."""
    model, sizes = MODELS[name]
    given = {"vocab_size": 320, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, **sizes}
    if name in ("t5", "bart"):
        given["decoder_start_token_id"] = 0
    made = model(model.config_class(**{**given, **more}))
    made.save_pretrained(folder)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
    return folder


def carried_out(tmp_path: Path, name: str, file: Path, *more: str) -> dict[str, Any]:
    place = saved(name, tmp_path / "model")
    given = ("model=hf", f"model.path={place}", "model.dtype=fp32", "optim.steps=2", "optim.max_length=100", *more)
    return run(config(*overrides(tmp_path, *given, file=file)))


@pytest.mark.parametrize("pooling", ["own", "mean"])
@pytest.mark.parametrize("name", ["xlm-roberta", "camembert", "deberta", "modernbert", "fnet"])
def test_an_encoder_is_trained_under_a_head(tmp_path: Path, name: str, pooling: str) -> None:
    result = carried_out(tmp_path, name, classes(tmp_path / "a.jsonl"), f"model.pooling={pooling}", "method=full")
    assert result["metric"] == "accuracy" and result["forgetting"]["feature_drift"] is not None


@pytest.mark.parametrize("name", ["t5", "bart"])
@pytest.mark.parametrize("write", [words, classes])
def test_an_encoder_decoder_learns_answers(tmp_path: Path, name: str, write: Any) -> None:
    result = carried_out(tmp_path, name, write(tmp_path / "a.jsonl"), "method=lora")
    assert result["metric"] == ("exact_match" if write is words else "accuracy")
    assert result["validation"]["loss"] > 0 and "encoder-decoder" in result["forgetting"]["reason"]


def test_what_an_encoder_decoder_cannot_learn_is_refused_before_training(tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text("".join(json.dumps({"text": f"Text number {i}."}) + "\n" for i in range(40)))
    with pytest.raises(ValueError, match="of the kind 'text' is learned by a language model, and not by an encoder-d"):
        carried_out(tmp_path, "t5", file)
