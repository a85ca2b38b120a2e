"""What each method did to the weights: the spectra of its runs, as means over their seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from statistics import fmean
from typing import Any

from experiments.store.result import Change, Complete, Spectra


def changes(tested: Mapping[str, Sequence[Complete]]) -> dict[str, dict[str, Any]] | None:
    """By method, for comparison.json; None where no run was asked."""
    measured = {
        method: [run.spectra for run in runs if run.spectra is not None and not run.untrained]
        for method, runs in tested.items()
    }
    measured = {method: each for method, each in measured.items() if each}
    return {method: together(each) for method, each in measured.items()} or None


def together(spectra: Sequence[Spectra]) -> dict[str, Any]:
    """Means over seeds, for all sites and each kind of them."""
    kinds = dict.fromkeys(kind for each in spectra for kind in each.sites)
    return {
        "top": spectra[0].top,
        "cosine": spectra[0].cosine,
        "n_seeds": len(spectra),
        "all": mean([each.all for each in spectra]),
        "sites": {kind: mean([each.sites.get(kind) for each in spectra]) for kind in kinds},
        "reason": next((each.reason for each in spectra if each.reason), None),
    }


def mean(measured: Sequence[Change | None]) -> dict[str, float] | None:
    """The mean of each number; None where no seed has any."""
    there = [asdict(each) for each in measured if each is not None]
    return {each.name: fmean(one[each.name] for one in there) for each in fields(Change)} if there else None
