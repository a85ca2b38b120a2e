"""Responses whose likelihood is what counts: learned as ever, and never written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from experiments.data.encode import Encoded
from experiments.data.reader import Reader
from experiments.objectives.language_modelling import LanguageModelling
from experiments.objectives.likelihood import text_likelihoods


class ResponseLikelihood(LanguageModelling):
    """The response is learned; an answer is '[nll_sum, n_tokens, n_bytes]' of the gold response, nll in nats."""

    kinds = ("respond",)

    def answers(self, reader: Reader, rows: Sequence[Encoded], max_new_tokens: int) -> list[str]:
        return text_likelihoods(reader, [replace(row, learned=()) for row in rows])
