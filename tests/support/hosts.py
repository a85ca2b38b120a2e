"""The models that the laws run on: small, random, seeded, and none of them knows of deltatune.

A `Host` says how one kind of model is made, fed, padded, generated from and checkpointed. `layer` is a glob that
matches one linear layer of every block, for methods without usual sites.

Legend: B rows, T tokens, D width.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import torch
import transformers
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tests.support.feature_maps import ConvNet, UNet
from tests.support.nano import NanoGPT

Batch = dict[str, Tensor]
VOCABULARY, WIDTH, HEADS, LAYERS, POSITIONS = 50, 32, 4, 2, 64
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.2,  # logits of order 1, so that a change is told from rounding
}


class Host:
    """One kind of model. front: ids put before every row's own tokens (a prompt's reserved ids)."""

    name: ClassVar[str]
    layer: ClassVar[str]
    takes_ids: ClassVar[bool] = True
    pads: ClassVar[bool] = False
    generates: ClassVar[bool] = False

    def build(self) -> nn.Module:
        raise NotImplementedError

    def model(self) -> nn.Module:
        """A new model in train mode (dropout is 0 everywhere), the same weights every time."""
        with torch.random.fork_rng():
            torch.manual_seed(7)
            model = self.build()
            for name, p in model.named_parameters():  # biases and norms start at 0 and 1, where errors hide
                if p.dim() == 1:
                    nn.init.normal_(p, mean=0.0 if name.endswith("bias") else 1.0, std=0.2)
        return model.train()

    def batch(self, rows: int = 2, tokens: int = 6, front: tuple[int, ...] = ()) -> Batch:
        return {"input_ids": ids(rows, tokens, front)}

    def run(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(**batch).logits

    def cut(self, batch: Batch, row: int, length: int) -> Batch:
        """One row's first tokens alone."""
        return {"input_ids": batch["input_ids"][row : row + 1, :length]}

    def padded(self, batch: Batch, lengths: list[int], side: str) -> Batch:
        """Every row's first `length` tokens, padded on one side to the longest."""
        raise NotImplementedError

    def real(self, out: Tensor, lengths: list[int], side: str) -> list[Tensor]:
        """The output at the real positions, row by row."""
        width = out.shape[1]
        return [o[width - n :] if side == "left" else o[:n] for o, n in zip(out, lengths)]

    def checkpointed(self, model: nn.Module) -> nn.Module:
        """The model with gradient checkpointing on."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*deprecated", FutureWarning)  # the newer name is missing in 5.0
            model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]
        return model

    @property
    def reduction(self) -> int:
        """The number of products summed along the longest path from input to output."""
        return sum(p[0].numel() if p.dim() == 4 else p.shape[-1] for p in self.model().parameters() if p.dim() > 1)


def ids(rows: int, tokens: int, front: tuple[int, ...] = ()) -> Tensor:
    own = torch.randint(3, VOCABULARY, (rows, tokens), generator=torch.Generator().manual_seed(11))
    return torch.cat([torch.tensor(front, dtype=torch.long).expand(rows, -1), own], 1)


def pad_ids(tokens: Tensor, lengths: list[int], side: str) -> tuple[Tensor, Tensor]:
    """(ids, mask of real ones): row by row the first `length` ids, the rest padding on one side."""
    width = max(lengths)
    padded, mask = torch.zeros(len(lengths), width, dtype=torch.long), torch.zeros(len(lengths), width).long()
    for i, n in enumerate(lengths):
        here = slice(width - n, width) if side == "left" else slice(0, n)
        padded[i, here], mask[i, here] = tokens[i, :n], 1
    return padded, mask


class PositionedHost(Host):
    """A transformers model over ids that takes explicit positions, which must skip the padding."""

    pads = True

    def padded(self, batch: Batch, lengths: list[int], side: str) -> Batch:
        tokens, mask = pad_ids(batch["input_ids"], lengths, side)
        return {
            "input_ids": tokens,
            "attention_mask": mask,
            "position_ids": (mask.cumsum(1) - 1).clamp_min(0),
        }


def generate(model: nn.Module, batch: Batch, cache: bool) -> tuple[Tensor, Tensor]:
    """(ids, logits of each step) of greedy generation by transformers, with a cache or without."""
    out = model.eval().generate(  # type: ignore[operator]
        **batch,
        max_new_tokens=4,
        min_new_tokens=4,
        do_sample=False,
        use_cache=cache,
        return_dict_in_generate=True,
        output_logits=True,
    )
    return out.sequences, torch.stack(out.logits, 1)


class Llama(PositionedHost):
    name, layer, generates, attention = "llama", "*.down_proj", True, "sdpa"

    def build(self) -> nn.Module:
        config = transformers.LlamaConfig(num_key_value_heads=2, pad_token_id=0, **SIZES)  # type: ignore[arg-type]
        return transformers.AutoModelForCausalLM.from_config(config, attn_implementation=self.attention)


class EagerLlama(Llama):
    name, attention = "llama-eager", "eager"


class GPT2(PositionedHost):
    name, layer, generates = "gpt2", "*.mlp.c_proj", True

    def build(self) -> nn.Module:
        config = transformers.GPT2Config(
            vocab_size=VOCABULARY,
            n_positions=POSITIONS,
            n_embd=WIDTH,
            n_layer=LAYERS,
            n_head=HEADS,
            initializer_range=0.2,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            bos_token_id=1,
            eos_token_id=2,
            pad_token_id=0,
        )
        return transformers.GPT2LMHeadModel(config)


class Bert(PositionedHost):
    name, layer = "bert", "*.layer.*.output.dense"

    def build(self) -> nn.Module:
        config = transformers.BertConfig(
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            num_labels=3,  # type: ignore[call-arg]
            **SIZES,
        )
        return transformers.BertForTokenClassification(config)


class T5(Host):
    """Encoder-decoder, relative positions: the encoder's ids are the batch's, the decoder's are always whole."""

    name, layer, pads, generates = "t5", "*.wo", True, True

    def build(self) -> nn.Module:
        config = transformers.T5Config(
            vocab_size=VOCABULARY,
            d_model=WIDTH,
            d_kv=WIDTH // HEADS,
            d_ff=2 * WIDTH,
            num_layers=LAYERS,
            num_heads=HEADS,
            dropout_rate=0.0,
            decoder_start_token_id=0,  # type: ignore[call-arg]
            feed_forward_proj="gelu",  # no host has one: at a ReLU's kink one rounding makes a gradient jump
        )
        return transformers.T5ForConditionalGeneration(config)

    def batch(self, rows: int = 2, tokens: int = 6, front: tuple[int, ...] = ()) -> Batch:
        return {"input_ids": ids(rows, tokens, front), "decoder_input_ids": ids(rows, 3)}

    def cut(self, batch: Batch, row: int, length: int) -> Batch:
        return super().cut(batch, row, length) | {"decoder_input_ids": batch["decoder_input_ids"][row : row + 1]}

    def padded(self, batch: Batch, lengths: list[int], side: str) -> Batch:
        tokens, mask = pad_ids(batch["input_ids"], lengths, side)
        return {**batch, "input_ids": tokens, "attention_mask": mask}

    def real(self, out: Tensor, lengths: list[int], side: str) -> list[Tensor]:
        return list(out)


class ViT(Host):
    name, layer, takes_ids = "vit", "*.fc2", False

    def build(self) -> nn.Module:
        sizes = {k: v for k, v in SIZES.items() if k not in ("vocab_size", "max_position_embeddings")}
        config = transformers.ViTConfig(
            image_size=8,
            patch_size=4,
            num_labels=3,  # type: ignore[call-arg]
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            **sizes,
        )
        return transformers.ViTForImageClassification(config)

    def batch(self, rows: int = 2, tokens: int = 6, front: tuple[int, ...] = ()) -> Batch:
        return {"pixel_values": torch.randn(rows, 3, 8, 8, generator=torch.Generator().manual_seed(11))}


class EncoderLayer(Host):
    """torch's own encoder layer: attention that never calls its out_proj, and a fast path in eval."""

    name, layer, takes_ids, pads = "encoder-layer", "linear2", False, True

    def build(self) -> nn.Module:
        return nn.TransformerEncoderLayer(WIDTH, HEADS, 2 * WIDTH, dropout=0.0, activation="gelu", batch_first=True)

    def batch(self, rows: int = 2, tokens: int = 6, front: tuple[int, ...] = ()) -> Batch:
        return {"src": torch.randn(rows, tokens, WIDTH, generator=torch.Generator().manual_seed(11))}

    def run(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(**batch)

    def cut(self, batch: Batch, row: int, length: int) -> Batch:
        return {"src": batch["src"][row : row + 1, :length]}

    def padded(self, batch: Batch, lengths: list[int], side: str) -> Batch:
        width = max(lengths)
        src, padding = torch.zeros(len(lengths), width, WIDTH), torch.ones(len(lengths), width).bool()
        for i, n in enumerate(lengths):
            here = slice(width - n, width) if side == "left" else slice(0, n)
            src[i, here], padding[i, here] = batch["src"][i, :n], False
        return {"src": src, "src_key_padding_mask": padding}

    def checkpointed(self, model: nn.Module) -> nn.Module:
        return Checkpointed(model)


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return checkpoint(self.inner, *args, use_reentrant=False, **kwargs)  # type: ignore[return-value]


class Nano(Host):
    name, layer = "nano", "h.*.mlp.c_proj"

    def build(self) -> nn.Module:
        return NanoGPT(VOCABULARY, POSITIONS, WIDTH, HEADS, LAYERS)

    def run(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(**batch)

    def checkpointed(self, model: nn.Module) -> nn.Module:
        model.checkpointing = True  # type: ignore[assignment]
        return model


class FusedMixtral(Llama):
    """Experts kept as stacks of matrices, which their module reads itself."""

    name, layer = "mixtral", "*.o_proj"

    def build(self) -> nn.Module:
        config = transformers.MixtralConfig(
            num_key_value_heads=2,
            num_local_experts=4,
            num_experts_per_tok=3,
            pad_token_id=0,
            **SIZES,  # type: ignore[arg-type]
        )
        return transformers.AutoModelForCausalLM.from_config(config)


class Convolutional(Host):
    name, layer, takes_ids = "conv-net", "classifier", False

    def build(self) -> nn.Module:
        return ConvNet()

    def batch(self, rows: int = 2, tokens: int = 6, front: tuple[int, ...] = ()) -> Batch:
        return {"x": torch.randn(rows, 3, 8, 8, generator=torch.Generator().manual_seed(11))}

    def run(self, model: nn.Module, batch: Batch) -> Tensor:
        return model(**batch)

    def checkpointed(self, model: nn.Module) -> nn.Module:
        return Checkpointed(model)


class Diffusion(Convolutional):
    name, layer = "u-net", "*.to_out"

    def build(self) -> nn.Module:
        return UNet()

    def batch(self, rows: int = 2, tokens: int = 6, front: tuple[int, ...] = ()) -> Batch:
        noise = torch.Generator().manual_seed(11)
        context = torch.randn(rows, tokens, 6, generator=noise)
        return {
            "sample": torch.randn(rows, 3, 8, 8, generator=noise),
            "time": torch.rand(rows, generator=noise),
            "context": context,
        }


HOSTS: tuple[Host, ...] = (
    Nano(),
    EncoderLayer(),
    Llama(),
    EagerLlama(),
    GPT2(),
    Bert(),
    T5(),
    ViT(),
    FusedMixtral(),
    Convolutional(),
    Diffusion(),
)
