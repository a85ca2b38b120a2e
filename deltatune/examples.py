"""Inputs for one forward of a model that comes without an example: made from its forward's arguments and its config.

Several are offered, the likelier first; whoever runs them takes the first that the model accepts.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from deltatune.hosts import modules

TOKENS = 8
PARTS = ("text_config", "vision_config", "audio_config", "encoder", "decoder", "backbone_config", "thinker_config")


def examples(model: nn.Module) -> Iterator[dict[str, Any]]:
    """Keyword arguments for one forward of a Hugging Face model; nothing for any other."""
    config = getattr(model, "config", None)
    main = getattr(model, "main_input_name", None)
    if config is None or not isinstance(main, str):
        return
    signature = inspect.signature(model.forward).parameters
    off = {"use_cache": False} if "use_cache" in signature else {}
    needed = [n for n, p in signature.items() if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    both = [n for n in ("input_ids", "pixel_values", "input_features", "input_values") if n in signature]
    decoder = ["decoder_input_ids"] if "decoder_input_ids" in signature else []
    seen = []
    for names in ([main, *needed, *decoder], [main, *needed], [*both, *needed, *decoder], both[:1]):
        names = list(dict.fromkeys(n for n in names if n in signature))
        made = {n: made_input(n, model, config) for n in names}
        if made and names not in seen and all(v is not None for v in made.values()):
            seen.append(names)
            yield {**made, **off}  # type: ignore[dict-item]


def made_input(name: str, model: nn.Module, config: Any) -> Tensor | None:
    """A tensor for the forward's argument of this name, or None where its meaning is not known."""
    maker = MAKERS.get(name)
    return None if maker is None else maker(model, config)


def sizes(config: Any, *names: str) -> list[int]:
    """The whole numbers that a config, or a part of it, gives under these names."""
    places = [config, *(getattr(config, p, None) for p in PARTS)]
    values = [getattr(c, n, None) for n in names for c in places if c is not None]
    return [v for v in values if isinstance(v, int) and not isinstance(v, bool) and v > 0]


def size(config: Any, *names: str, default: int) -> int:
    return next(iter(sizes(config, *names)), default)


def token_ids(model: nn.Module, config: Any) -> Tensor:
    """Ordinary ids, the model's last token at the end, since some read the state there."""
    tables = [m.num_embeddings for _, m in modules(model) if isinstance(m, nn.Embedding)]
    vocabulary = size(config, "vocab_size", default=max(tables, default=TOKENS))
    special = {v for v in vars(config).values() if isinstance(v, int)}
    plain = [i for i in range(min(vocabulary, 20 * TOKENS)) if i not in special] or [0]
    ids = torch.tensor([plain[i % len(plain)] for i in range(1, TOKENS + 1)])
    end = getattr(config, "eos_token_id", None)
    if isinstance(end, int) and 0 <= end < vocabulary:
        ids[-1] = end
    return ids[None]


def image(model: nn.Module, config: Any) -> Tensor:
    sides = [getattr(c, "image_size", None) for c in [config, *(getattr(config, p, None) for p in PARTS)] if c]
    side = next((s for s in sides if s), 224)
    height, width = (side, side) if isinstance(side, int) else tuple(side)[:2]
    return noise(model, 1, size(config, "num_channels", "in_channels", "in_chans", default=3), height, width)


def sound(model: nn.Module, config: Any) -> Tensor:
    return noise(model, 1, 4000)


def spectrogram(model: nn.Module, config: Any) -> Tensor:
    bands = size(config, "num_mel_bins", "feature_size", "input_feat_per_channel", default=80)
    positions = size(config, "max_source_positions", default=0)
    return noise(model, 1, bands, 2 * positions) if positions else noise(model, 1, 64, bands)


def noise(model: nn.Module, *shape: int) -> Tensor:
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


MAKERS: dict[str, Callable[[nn.Module, Any], Tensor]] = {
    "input_ids": token_ids,
    "decoder_input_ids": token_ids,
    "pixel_values": image,
    "input_values": sound,
    "input_features": spectrogram,
    "inputs_embeds": lambda m, c: noise(m, 1, TOKENS, size(c, "hidden_size", "d_model", default=1)),
    "hidden_states": lambda m, c: noise(m, 1, TOKENS, size(c, "hidden_size", "d_model", default=1)),
    "past_values": lambda m, c: noise(
        m, 1, size(c, "context_length", default=8), size(c, "num_input_channels", default=1)
    ),
    "bbox": lambda m, c: torch.zeros(1, TOKENS, 4, dtype=torch.long),
}
