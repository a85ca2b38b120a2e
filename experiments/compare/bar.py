"""The bar that fine-tuning has to clear: baselines that train nothing, or nothing of the encoder."""

from __future__ import annotations

from collections.abc import Mapping

from experiments.compare.remarks import Tested
from experiments.store.result import Complete


def is_baseline(row: Complete) -> bool:
    """Whether the run is of a baseline: its method's configuration says so, or nothing was trained."""
    return bool(row.config.get("method", {}).get("baseline", False)) or row.untrained


def baselines_of(tested: Tested) -> list[str]:
    """The methods that are baselines."""
    return [method for method, rows in tested.items() if is_baseline(rows[0])]


def below(means: Mapping[str, float], baselines: list[str]) -> dict[str, list[str]]:
    """By method that is no baseline: the baselines whose mean is higher, the highest first."""
    ordered = sorted(baselines, key=lambda name: -means[name])
    return {
        method: [name for name in ordered if means[name] > mean]
        for method, mean in means.items()
        if method not in baselines
    }


def withheld(means: Mapping[str, float], baselines: list[str]) -> str | None:
    """Why no letters are printed: fine-tuning is below what trains nothing. None where it is not.

    A ranking of methods that all lose to a linear probe ranks what kept them from working.
    """
    under = below(means, baselines)
    if not under:
        return None
    best = max(under, key=lambda method: means[method])
    if not under[best]:
        return None
    listed = ", ".join(f"{name} ({means[name]:.3f})" for name in under[best])
    return (
        f"no letters: the best fine-tuned method, {best} ({means[best]:.3f}), is below {listed}, which fine-tunes "
        "nothing; what keeps the methods from that level is to be found before they are ranked"
    )
