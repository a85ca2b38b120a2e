"""Any configuration of transformers made tiny: every number by the kind of size that its name says.

A recipe is one set of sizes; where a model does not build or run with the first, the next is tried. Nothing here
knows one model from another.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedConfig

Resize = Callable[["Recipe", int], int]


@dataclass(frozen=True)
class Recipe:
    """Sizes of a tiny model. every: whether numbers of all kinds shrink, or layers and vocabulary alone. filled: sizes
    that a configuration leaves open are given too."""

    width: int = 32
    heads: int = 4
    groups: int = 2
    head: int = 8
    hidden: int = 48
    layers: int = 2
    vocabulary: int = 128
    positions: int = 128
    image: int = 32
    patch: int = 8
    every: bool = True
    filled: bool = False


RECIPES = (
    Recipe(),
    Recipe(groups=4),
    Recipe(head=16, groups=4),
    Recipe(groups=4, filled=True),
    Recipe(width=64, hidden=96, head=16, image=64),
    Recipe(width=64, hidden=128, head=16, groups=4, image=64, patch=16, layers=4),
    Recipe(width=256, hidden=128, head=128, heads=2, image=64),
    Recipe(every=False),
)


def at_most(limit: int) -> Resize:
    return lambda recipe, value: min(value, limit)


def of(name: str) -> Resize:
    return lambda recipe, value: min(value, getattr(recipe, name))


# The first pattern that a name contains says what its number is. Layers, vocabulary and what counts experts shrink in
# every recipe, the rest where the recipe shrinks numbers of all kinds.
ALWAYS: tuple[tuple[str, Resize], ...] = (
    (r"vocab|num_entity|entity_size|num_embeddings$|codebook_size|num_(user|item)s", of("vocabulary")),
    (r"n_group$|topk_group|num_expert_group", at_most(1)),
    (r"experts_per_tok|top_?k|moe_k|experts_per_token|num_selected", at_most(2)),
    (r"shared_expert(?!.*(size|dim))|n_shared", at_most(1)),
    (r"expert(?!.*(size|dim|capacity|period|offset|interval|step|layer))|num_memory", at_most(4)),
    (r"(dense_replace|first_dense|dense_layers|mtp|nextn)", at_most(1)),
    (r"(period|every|interval|frequency|sparse_step|stride_layers)", at_most(2)),
    (r"offset", at_most(1)),
    (
        r"layers?$|n_layers?$|depths?$|num_blocks|layers_per|num_stages_blocks|n_blocks|hidden_layers|block_sizes"
        r"|layer_num|num_hidden_groups",
        of("layers"),
    ),
)
KINDS: tuple[tuple[str, Resize], ...] = (
    (r"(key_value|kv|query_groups|n_groups_kv)(.*heads?|s?$)|num_query_groups|multi_query_group", of("groups")),
    (r"(num|n)_.*heads?$|heads?$|num_heads", of("heads")),
    (r"head_dim|d_head|d_kv$|head_size|qk_.*dim|v_.*head_dim|key_value_proj_dim|key_dim|kv_channels", of("head")),
    (r"rope.*dim|rotary.*dim|rotary_ndims|partial", of("head")),
    (r"lora_rank|_rank$|rank$|time_step_rank|low_rank", at_most(8)),
    (
        r"intermediate|ffn|d_ff$|inner|mlp_dim|feed_?forward|expansion_size|moe_.*size|feature_size|dim_feed",
        of("hidden"),
    ),
    (r"position|n_ctx|max_.*len|max_.*duration|seq_len|context_length|max_target|max_source", of("positions")),
    (r"image_size|img_size|resolution|input_size|image_res|pretrain_.*size|crop", of("image")),
    (r"patch|spatial_merge_patch", of("patch")),
    (r"window|chunk|block_size|bucket|num_landmarks|memory_size", at_most(16)),
    (r"state|conv_kernel|ssm", at_most(4)),
    (r"mel|num_bins|n_bins", at_most(16)),
    (r"queries|num_query|latents|num_prefix", at_most(8)),
    (r"(hidden|embed|d_model|width|dim|channels|size|units|features|n_embd|filters)", of("width")),
)
KEPT = re.compile(
    r"type_vocab|num_labels|kernel|stride|^num_channels|^in_channels|in_chans|ratio|factor|scale|_ids?$|dilation|padding"
    r"|tubelet|temporal|frames|groups$|n_fft|hop|sampling|rate|theta|_token"
)


def tiny(cls: type[PreTrainedConfig], recipe: Recipe) -> PreTrainedConfig:
    """A configuration of this class with its sizes shrunk, and those of the configurations inside it."""
    return shrunk(cls(), recipe)


def shrunk(config: PreTrainedConfig, recipe: Recipe) -> PreTrainedConfig:
    """A new configuration, made by the class of this one from its own values as they shrink."""
    cls = type(config)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        value = getattr(config, field.name, None)
        if isinstance(value, PreTrainedConfig):
            values[field.name] = shrunk(value, recipe)
        elif (field.default is not None and value is not None and field.name not in inherited()) or (
            isinstance(value, dict) and any(str(key).endswith("section") for key in value)
        ):
            values[field.name] = resized(field.name, value, recipe)
        elif recipe.filled and value is None and re.search("vocab_size|experts_per_tok|n_group", field.name):
            values[field.name] = resized_number(field.name, 1 << 20, recipe)
    values |= layer_kinds(config, values, recipe)
    values |= special_ids(config, values)
    return cls(**values)


def inherited() -> set[str]:
    return {field.name for field in dataclasses.fields(PreTrainedConfig)}  # type: ignore[arg-type]


def resized(name: str, value: Any, recipe: Recipe) -> Any:
    """A value as it is in the tiny configuration: sizes by the kind that their name says, no dropout."""
    if isinstance(value, (bool, str)):
        return False if name == "apply_spec_augment" else value
    if isinstance(value, float):
        return 0.0 if re.search(r"drop|mask.*prob|jitter", name) else value
    if isinstance(value, int):
        return resized_number(name, value, recipe)
    if isinstance(value, (list, tuple)) and value and all(type(v) is int for v in value):
        return type(value)(resized_list(name, list(value), recipe))
    if isinstance(value, dict):
        return {k: resized(str(k), v, recipe) for k, v in value.items()}
    return value


def resized_number(name: str, value: int, recipe: Recipe) -> int:
    if KEPT.search(name):
        return value
    for pattern, resize in ALWAYS + (KINDS if recipe.every else ()):
        if re.search(pattern, name):
            return resize(recipe, value)
    return value


def resized_list(name: str, values: Sequence[int], recipe: Recipe) -> list[int]:
    """Sizes of several stages keep their ratios; layers and heads of each stage shrink one by one."""
    if name.endswith("section"):  # how many of half a head's size turn with each axis
        most = max(range(len(values)), key=lambda i: values[i])
        shares = [max(1, v * recipe.head // 2 // sum(values)) for v in values]
        shares[most] += recipe.head // 2 - sum(shares)
        return shares
    if KEPT.search(name) or (not recipe.every and max(values) > 8 and not re.search("depth|layers", name)):
        return list(values)
    if re.search(r"hidden|embed|dim|width|channels|size", name) and min(values) > 16 and "image" not in name:
        return [max(1, 16 * v // min(values)) for v in values]
    return [resized_number(name, v, recipe) for v in values]


def layer_kinds(config: PreTrainedConfig, values: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """Where a model's layers are of several kinds, one of each kind, in the order in which they first stand."""
    count = next((n for n in ("num_hidden_layers", "num_layers", "n_layer") if n in values), None)
    if count is None:
        return {}
    found: dict[str, Any] = {}
    for field in dataclasses.fields(type(config)):  # type: ignore[arg-type]
        kinds = getattr(config, field.name, None)
        several = isinstance(kinds, (list, tuple)) and len(kinds) == getattr(config, count) > 1
        if several and all(isinstance(kind, str) for kind in kinds):
            each = list(dict.fromkeys(kinds))
            found[field.name] = (each * recipe.layers)[: max(len(each), recipe.layers)]
    if found:
        longest = max(len(kinds) for kinds in found.values())
        found = {n: (kinds * longest)[:longest] for n, kinds in found.items()}
        found[count] = longest
    for field in dataclasses.fields(type(config)):  # type: ignore[arg-type]
        pairs = getattr(config, field.name, None)  # [[kinds, how often], ...], each kind once
        if isinstance(pairs, list) and pairs and all(isinstance(p, list) and isinstance(p[0], list) for p in pairs):
            found[field.name] = [[kinds, 1] for kinds, _ in pairs]
            found[count] = sum(len(kinds) for kinds, _ in pairs)
    before, after = getattr(config, count), found.get(count, values[count])
    each = {n: v[:after] for n, v in values.items() if isinstance(v, (list, tuple)) and len(v) == before > after}
    return each | found


def special_ids(config: PreTrainedConfig, values: dict[str, Any]) -> dict[str, Any]:
    """Ids of special tokens that a small vocabulary does not hold, each another one below its end."""
    size = min((v for n, v in values.items() if n == "vocab_size"), default=None)
    if size is None:
        texts = [v for v in values.values() if isinstance(v, PreTrainedConfig)]
        sizes = [v.vocab_size for v in texts if isinstance(getattr(v, "vocab_size", None), int)]
        size = min(sizes, default=None)
    if size is None:
        return {}
    low = iter(range(size - 1, 2, -1))
    given: dict[str, Any] = {}
    for field in dataclasses.fields(type(config)):  # type: ignore[arg-type]
        value = getattr(config, field.name, None)
        if re.search(r"token_id$|token_index$|_token$|(start|end|pad|eos|bos)_id$", field.name) and type(value) is int:
            given[field.name] = value if 0 <= value < size // 2 else next(low)
        elif field.name in ("eos_token_id",) and isinstance(value, list):
            given[field.name] = next(low)
    return given
