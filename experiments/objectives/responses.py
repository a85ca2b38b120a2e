"""Responses: the answer to a prompt is learned, and written by greedy decoding."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.data.encode import Encoded
from experiments.data.reader import Reader
from experiments.objectives.generation import generated
from experiments.objectives.language_modelling import LanguageModelling


class Responses(LanguageModelling):
    """The response is learned and the prompt is not; a chat's earlier turns of the assistant by loss_on=all."""

    kinds = ("generate",)
    writes = True

    def answers(self, reader: Reader, rows: Sequence[Encoded], max_new_tokens: int) -> list[str]:
        return generated(reader, rows, max_new_tokens, self.hopeless)
