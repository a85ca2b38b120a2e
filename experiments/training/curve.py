"""Quality along a training: at which steps it is taken, and what is kept of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from experiments.training.checkpoint import State


def log_spaced(points: int, steps: int) -> tuple[int, ...]:
    """Step 0 and at most `points` steps from 1 to the last one, each about the same multiple of the one before."""
    if points == 0:
        return ()
    shares = [1.0] if points == 1 else [i / (points - 1) for i in range(points)]
    return (0, *sorted({round(steps**share) for share in shares}))


@dataclass(frozen=True)
class Curve:
    """The steps at which the model in training is scored, and the function that does it.

    measure: what is taken of it, by name: its validation loss, the main metric, what it forgot. It must leave gradients
    and random states alone.
    """

    steps: tuple[int, ...] = ()
    measure: Callable[[], dict[str, Any]] = dict

    def due(self, state: State) -> bool:
        """Whether the state's step is to be scored and is not yet."""
        return state.step in self.steps and all(point["step"] != state.step for point in state.curve)

    def take(self, state: State, batch_size: int) -> None:
        """Score the model as it is, and keep the point with what it has cost to come there."""
        measured = self.measure()
        state.curve.append(
            {
                "step": state.step,
                "examples": state.step * batch_size,
                "tokens": state.tokens,
                "train_s": state.wall_s,
                **measured,
            }
        )
