"""Two models of random weights, for tests and dry runs: a Llama of two layers and a BERT of two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.models.tokenizer import CHATML, byte_tokenizer
from experiments.support.cache import cached

SOURCE = "random weights, seed 0"


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
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        kind(config).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
