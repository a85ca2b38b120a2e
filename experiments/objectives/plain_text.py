"""Plain text: every token is learned that another comes before, and how likely the text is stands for an answer."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.data.encode import Encoded, placed
from experiments.data.reader import Reader
from experiments.data.shorten import Cut
from experiments.objectives.language_modelling import LanguageModelling
from experiments.objectives.likelihood import text_likelihoods
from experiments.tasks.base import Example


class PlainText(LanguageModelling):
    """The whole text is learned; an answer is '[nll_sum, n_tokens, n_bytes]', nll in nats."""

    kinds = ("text",)

    def encode(self, example: Example) -> Encoded:
        """The text's tokens; a text that is too long loses its end. Raises ValueError for one of a single token."""
        encoder = self.encoder
        with placed(example):
            ids = [*encoder.front, *encoder.text_ids(example.text)]
        start = max(1, len(encoder.front))
        if len(ids) <= start:
            raise ValueError(f"{example.place or 'an example'}: a text of one token, so none to predict; drop it")
        if encoder.max_length <= start:
            raise ValueError(
                f"{example.place or 'an example'}: optim.max_length={encoder.max_length} leaves nothing to predict; "
                "raise it"
            )
        cut = Cut(tokens=max(0, len(ids) - encoder.max_length))
        return Encoded(ids[:start], ids[start : encoder.max_length], cut=cut)

    def answers(self, reader: Reader, rows: Sequence[Encoded], max_new_tokens: int) -> list[str]:
        return text_likelihoods(reader, rows)
