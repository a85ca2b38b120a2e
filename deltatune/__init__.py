"""deltatune: parameter-efficient fine-tuning as an algebra of deltas on a frozen transformer."""

from deltatune.core import (
    BaseMismatch,
    DeltaError,
    DeltaModule,
    FormatError,
    Frozen,
    NoMatch,
    NotFoldable,
    NotReached,
    Opaque,
    Rule,
    Stacked,
)
from deltatune.hosts import Features, features
from deltatune.inject import (
    eject,
    inject,
    parameters,
    plan,
    prompt_ids,
    verify,
)
from deltatune.inject import freeze_base as freeze
from deltatune.io import fingerprint, load, save
from deltatune.merge import diff, merge, merged
from deltatune.methods import IA3, METHODS, Adapter, BitFit, DoRA, Full, Head, LoRA, Prefix, Prompt, Rows, Statistics
from deltatune.plan import Plan
from deltatune.switching import active, use

__version__ = "0.1.0"

__all__ = [
    "IA3",
    "METHODS",
    "Adapter",
    "BaseMismatch",
    "BitFit",
    "DeltaError",
    "DeltaModule",
    "DoRA",
    "Features",
    "FormatError",
    "Frozen",
    "Full",
    "Head",
    "LoRA",
    "NoMatch",
    "NotFoldable",
    "NotReached",
    "Opaque",
    "Plan",
    "Prefix",
    "Prompt",
    "Rows",
    "Rule",
    "Stacked",
    "Statistics",
    "active",
    "diff",
    "eject",
    "features",
    "fingerprint",
    "freeze",
    "inject",
    "load",
    "merge",
    "merged",
    "parameters",
    "plan",
    "prompt_ids",
    "save",
    "use",
    "verify",
]
