"""Multiple choice: the right choice is learned as a response; the answer is the choice that is likeliest a byte."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.data.encode import Encoded, Option
from experiments.data.reader import Reader
from experiments.objectives.language_modelling import LanguageModelling
from experiments.objectives.likelihood import likeliest_choice
from experiments.tasks.base import Example


class MultipleChoice(LanguageModelling):
    """Choices, which may be of any length, are held against one another by log p / bytes, without an end of turn."""

    kinds = ("choose",)

    def options(self, example: Example) -> tuple[Option, ...]:
        return tuple(Option(text, self.encoder.begun(example, text), len(text.encode())) for text in example.choices)

    def answers(self, reader: Reader, rows: Sequence[Encoded], max_new_tokens: int) -> list[str]:
        return likeliest_choice(reader, rows)
