"""A frontier and spectra of no real study, as they stand in comparison.json: every number is made up."""

from __future__ import annotations

from typing import Any

RATES, SHARES = (1e-4, 3e-4, 1e-3), (0.5, 0.75, 1.0)
KINDS = {"self_attn.q_proj": 0.8, "mlp.down_proj": 1.2}


def frontier(methods: dict[str, tuple[float, float]], base: float = 0.05) -> dict[str, Any]:
    """Quality against forgetting of methods, each by its best quality and what it forgot there."""
    points = [
        {
            "method": method,
            "lr": lr,
            "step": 100,
            "n_seeds": 3,
            "quality": base + (best - base) * (i + 1) / 3,
            "forgotten": lost * ((i + 1) / 3) ** 2,
            "front": True,
        }
        for method, (best, lost) in methods.items()
        for i, lr in enumerate(RATES)
    ]
    points += [{**point, "step": 50, "quality": point["quality"] - 0.02, "front": False} for point in points]
    top = sorted(best for best, _ in methods.values())[-2] if len(methods) > 1 else base
    levels = [level(methods, base, base + share * (top - base)) for share in SHARES]
    return {
        "quality": "exact_match",
        "split": "validation",
        "measure": "KL to the base, nats a token",
        "base_quality": base,
        "points": points,
        "levels": levels,
        "notes": ["a made-up note on fronts"],
    }


def level(methods: dict[str, tuple[float, float]], base: float, quality: float) -> dict[str, Any]:
    """What each method forgot at this quality; those that do not reach it."""
    forgot = {
        method: lost * ((quality - base) / (best - base)) ** 2
        for method, (best, lost) in methods.items()
        if best >= quality
    }
    order = sorted(forgot, key=lambda method: forgot[method])
    entries = [
        {
            "method": method,
            "mean": forgot[method],
            "low": forgot[method] * 0.8,
            "high": forgot[method] * 1.2,
            "seed_sd": 0.01,
            "group": "ab"[i > 0],
            "n_seeds": 3,
        }
        for i, method in enumerate(order)
    ]
    pairs = [
        {
            "a": a,
            "b": b,
            "difference": forgot[a] - forgot[b],
            "low": forgot[a] - forgot[b] - 0.01,
            "high": forgot[a] - forgot[b] + 0.01,
            "p": 0.001,
            "p_holm": 0.004,
            "verdict": "better" if i == 0 else "undecided",
            "better": a if i == 0 else None,
            "smallest": 0.02,
        }
        for i, a in enumerate(order)
        for b in order[i + 1 :]
    ]
    return {
        "quality": quality,
        "methods": entries,
        "pairs": pairs,
        "not_reached": [method for method in methods if method not in forgot],
    }


def spectra(methods: tuple[str, ...]) -> dict[str, Any]:
    """What became of the weights; a prefix changes none."""

    def change(size: float) -> dict[str, float]:
        ranks = {"rank": 16.0, "stable_rank": 2.5 * size, "effective_rank": 6.25 * size}
        return {"n_weights": 30, "norm": 0.01 * size, **ranks, "intruders": 0.5 * size}

    whole = {"top": 10, "cosine": 0.5, "n_seeds": 3}
    return {
        method: {**whole, "all": None, "sites": {}, "reason": "30 sites are left out: made up"}
        if method == "prefix"
        else {
            **whole,
            "all": change(1.0),
            "sites": {kind: change(size) for kind, size in KINDS.items()},
            "reason": None,
        }
        for method in methods
    }
