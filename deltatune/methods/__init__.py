"""Every method, one file each. METHODS is what `load` knows without being told."""

from deltatune.core import DeltaModule
from deltatune.methods.adapter import Adapter
from deltatune.methods.bitfit import BitFit
from deltatune.methods.dora import DoRA
from deltatune.methods.full import Full
from deltatune.methods.head import Head
from deltatune.methods.ia3 import IA3
from deltatune.methods.lora import LoRA
from deltatune.methods.prefix import Prefix
from deltatune.methods.prompt import Prompt
from deltatune.methods.rows import Rows
from deltatune.methods.statistics import Statistics

METHODS: dict[str, type[DeltaModule]] = {
    m.__name__: m for m in (LoRA, DoRA, Adapter, Prefix, Prompt, BitFit, IA3, Full, Head, Rows)
}

__all__ = [
    "IA3", "METHODS", "Adapter", "BitFit", "DoRA", "Full", "Head", "LoRA", "Prefix", "Prompt", "Rows", "Statistics",
]  # fmt: skip
