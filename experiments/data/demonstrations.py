"""Answered examples before a prompt: what a model that is not trained can be shown instead (Brown et al. 2020)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from experiments.tasks.base import Example, TaskData, TaskError


def drawn(data: TaskData, shots: int, seed: int) -> list[Example]:
    """Training examples to show, of as many different answers as there are. Raises TaskError where there are too few,
    or where the task asks for nothing."""
    if data.kind == "text":
        raise TaskError(f"task={data.name}: plain text asks for no answer, so method.shots={shots} can show none")
    if len(data.train) < shots:
        raise TaskError(f"method.shots={shots}: task={data.name} has {len(data.train)} training examples; show fewer")
    order = random.Random(seed).sample(data.train, len(data.train))
    firsts = {example.completion: example for example in reversed(order)}  # the first in order of each answer
    different = [example for example in order if firsts[example.completion] is example]
    return [*different, *(example for example in order if firsts[example.completion] is not example)][:shots]


def shown(example: Example, demonstrations: Sequence[Example]) -> Example:
    """The example whose prompt begins with the demonstrations: turns of a chat, or texts with an empty line between."""
    if not demonstrations:
        return example
    if example.messages:
        n_system = next((i for i, turn in enumerate(example.messages) if turn["role"] != "system"), 0)
        earlier = [
            turn
            for one in demonstrations
            for turn in (
                *(turn for turn in one.messages if turn["role"] != "system"),
                {"role": "assistant", "content": one.completion},
            )
        ]
        turns = (*example.messages[:n_system], *earlier, *example.messages[n_system:])
        return replace(example, messages=turns)
    answered = (f"{one.prompt_text}{'' if one.continues else chr(10)}{one.completion}" for one in demonstrations)
    return replace(example, text="\n\n".join([*answered, example.prompt_text]), text_pair=None)
