"""Letters: shared exactly by those that are not told apart."""

from __future__ import annotations

import numpy as np

from experiments.compare.letters import letters


def test_letters_are_shared_exactly_by_the_indistinguishable() -> None:
    rng = np.random.default_rng(5)
    names = [f"m{i}" for i in range(8)]
    for _ in range(200):
        pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        apart = {pair for pair, far in zip(pairs, rng.random(len(pairs)) < rng.random()) if far}
        given = letters(names, apart)
        assert all((not set(given[a]) & set(given[b])) == ((a, b) in apart) for a, b in pairs)
        assert all(given.values())
    assert letters(["x", "y", "z"], {("x", "z")}) == {"x": "a", "y": "ab", "z": "b"}
    many = [f"m{i}" for i in range(30)]
    each = letters(many, {(a, b) for i, a in enumerate(many) for b in many[i + 1 :]})
    assert (each["m25"], each["m26"]) == ("z", "a'")
