"""Inputs of any model of transformers, from its configuration and the signature of its forward.

What a model is fed is told from the names of its forward's arguments; several shapes are offered, the first that the
model takes is the one.

Legend: B rows, T tokens, C channels, S side of an image.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

B, T = 2, 10
Batch = dict[str, Any]
LOW = 3  # ids below are padding, start and end


def candidates(model: nn.Module) -> Iterator[Batch]:
    """Batches that the model may take, the fullest first."""
    takes = [n for n in inspect.signature(model.forward).parameters if n not in ("self", "kwargs", "args")]
    config = model.config
    main = getattr(model, "main_input_name", "input_ids")
    texts = text(model, takes)
    images = list(pictures(config, takes)) if "pixel_values" in takes else []
    for image in images:
        if "input_ids" in takes:
            yield from joined(model, texts, image)
        yield image
        yield {**image, **decoder(config, takes)}
    if texts and not (images and main == "pixel_values"):
        yield texts
        yield {n: v for n, v in texts.items() if n != "decoder_input_ids"}
    for name, shapes in OTHERS.items():
        if name in takes:
            for shape in shapes(config):
                value = normal(*shape)
                yield {name: value, **decoder(config, takes)}
                yield {name: value, **texts}
    yield from dummies(model)


def dummies(model: nn.Module) -> Iterator[Batch]:
    """transformers' own example, its ids made small enough."""
    try:
        given = model.dummy_inputs
    except Exception:
        return
    size = table_size(model.config)
    yield {n: v % size if isinstance(v, Tensor) and v.dtype is torch.long else v for n, v in given.items()}


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(11))


def ids(size: int, length: int = T, seed: int = 11) -> Tensor:
    """(B, length) ids between the special ones at the start of a vocabulary and those at its end."""
    return torch.randint(LOW, max(LOW + 1, size // 2), (B, length), generator=torch.Generator().manual_seed(seed))


def ended(tokens: Tensor, config: Any) -> Tensor:
    """The ids with the end of a text as the last one, where some models look for what they pool."""
    end = getattr(config, "eos_token_id", None)
    if isinstance(end, int) and 0 <= end < table_size(config):
        tokens[:, -1] = end
    return tokens


def table_size(config: Any) -> int:
    inner = config.get_text_config() if hasattr(config, "get_text_config") else config
    size = getattr(inner, "vocab_size", None)
    return size if isinstance(size, int) and size > LOW else 64


def text(model: nn.Module, takes: list[str]) -> Batch:
    """Ids, and a mask where the model has one; ids of a decoder where it has one of its own."""
    config = model.config
    batch: Batch = {}
    if "input_ids" in takes:
        batch["input_ids"] = ended(ids(table_size(config)), config)
        if "attention_mask" in takes:
            batch["attention_mask"] = torch.ones(B, T, dtype=torch.long)
    if batch or "inputs_embeds" not in takes:
        batch |= decoder(config, takes)
    return batch


def decoder(config: Any, takes: list[str]) -> Batch:
    if "decoder_input_ids" not in takes or not getattr(config, "is_encoder_decoder", "decoder_input_ids" in takes):
        return {}
    own = config.get_text_config(decoder=True)
    size = getattr(own, "decoder_vocab_size", None) or getattr(own, "vocab_size", 64)
    return {"decoder_input_ids": ids(size, 5, seed=12)}


def parts(config: Any) -> list[Any]:
    """The configuration and those inside it, of images first."""
    inside = [v for v in vars(config).values() if hasattr(v, "to_dict")]
    vision = [v for n, v in vars(config).items() if hasattr(v, "to_dict") and "vision" in n + v.model_type]
    return [config, *vision, *inside]


def first(config: Any, *names: str, default: Any) -> Any:
    """The first of these numbers that the configuration, or one inside it, has."""
    for part in parts(config):
        for name in names:
            value = getattr(part, name, None)
            if isinstance(value, (int, list, tuple)) and not isinstance(value, bool):
                return value
    return default


def pictures(config: Any, takes: list[str]) -> Iterator[Batch]:
    """Pixels: one image a row, patches already cut and flattened, or frames."""
    side = first(config, "image_size", "img_size", "input_size", default=32)
    height, width = side[-2:] if isinstance(side, (list, tuple)) and len(side) > 1 else (side, side)
    if isinstance(height, (list, tuple)):
        height, width = height[0], width[0]
    channels = first(config, "num_channels", "in_channels", "in_chans", default=3)
    frames = first(config, "num_frames", default=2)
    patch = first(config, "patch_size", default=4)
    patch = patch[-1] if isinstance(patch, (list, tuple)) else patch
    if "image_grid_thw" in takes:
        temporal = first(config, "temporal_patch_size", default=1)
        for times in (temporal, 1):
            grid = torch.tensor([[1, 4, 4]] * B)
            yield {"pixel_values": normal(B * 16, channels * times * patch * patch), "image_grid_thw": grid}
    for shape in (
        (B, channels, height, width),
        (B, frames, channels, height, width),
        (B, channels, frames, height, width),
        (B, 1, channels, height, width),
        (B, channels, 64, 64),
        (B, channels, 128, 128),
        (B, 16, channels * patch * patch),
    ):
        yield {"pixel_values": normal(*shape)}


def joined(model: nn.Module, texts: Batch, image: Batch) -> Iterator[Batch]:
    """Text with an image in it: a placeholder for each of the vectors that the model makes of the image."""
    config = model.config
    token = first(config, "image_token_id", "image_token_index", default=None)
    if token is not None and "input_ids" in texts:
        count = vectors(model, image)
        if count:
            own = texts["input_ids"]
            held = torch.full((B, count // B), token)
            whole = torch.cat([own[:, :2], held, own[:, 2:]], 1)
            batch = {**texts, **image, "input_ids": whole}
            if "attention_mask" in texts:
                batch["attention_mask"] = torch.ones_like(whole)
            if "mm_token_type_ids" in inspect.signature(model.forward).parameters:
                batch["mm_token_type_ids"] = (whole == token).long()
            yield batch
    yield {**texts, **image}


@torch.no_grad()
def vectors(model: nn.Module, image: Batch) -> int:
    """How many vectors a model makes of these images, in all; 0 where it does not say."""
    find: Callable[..., Any] | None = getattr(model, "get_image_features", None)
    if find is None:
        return 0
    try:
        made = find(**image)
    except Exception:
        return 0
    made = getattr(made, "pooler_output", made)
    pieces = made if isinstance(made, (list, tuple)) else [made]
    return sum(t.shape[:-1].numel() for t in pieces if isinstance(t, Tensor))


def sound(config: Any) -> list[tuple[int, ...]]:
    return [(B, 2000), (B, 1, 2000), (B, 8000), (B, 1, 8000)]


def spectrum(config: Any) -> list[tuple[int, ...]]:
    bins = first(
        config,
        "num_mel_bins",
        "num_mels",
        "n_mels",
        "feature_size",
        "input_dim",
        "input_features",
        "input_feat_per_channel",
        "feature_projection_input_dim",
        default=16,
    )
    times = 2 * first(config, "max_source_positions", default=32)
    return [(B, bins, times), (B, times, bins), (B, 1, bins, bins), (B, 1, times, bins), (B, bins, 64)]


def series(config: Any) -> list[tuple[int, ...]]:
    length = first(config, "context_length", "prediction_length", default=32)
    channels = first(config, "num_input_channels", "input_size", default=1)
    return [(B, length, channels), (B, length)]


def video(config: Any) -> list[tuple[int, ...]]:
    side = first(config, "image_size", "crop_size", default=32)
    frames = first(config, "num_frames", "frames_per_clip", default=2)
    return [(B, frames, 3, side, side), (B, 3, frames, side, side)]


def vectors_in(config: Any) -> list[tuple[int, ...]]:
    return [(B, T, first(config, "hidden_size", "d_model", "n_embd", "input_dim", default=32))]


OTHERS: dict[str, Callable[[Any], list[tuple[int, ...]]]] = {
    "input_values": lambda config: [*sound(config), *spectrum(config)],
    "input_features": spectrum,
    "past_values": series,
    "pixel_values_videos": video,
    "audio_values": lambda config: [*spectrum(config), *sound(config)],
    "hidden_states": vectors_in,
    "inputs_embeds": vectors_in,
    "inputs": vectors_in,
    "encoder_hidden_states": vectors_in,
}
