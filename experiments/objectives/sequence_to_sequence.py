"""Encoder-decoders: the encoder reads the prompt, and the decoder learns and says the answer.

Legend: B rows, T tokens of the longest prompt, L tokens of the longest answer, N pairs of a prompt and an answer,
M labelled positions, V vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from experiments.config.family import Family
from experiments.data.batch import IGNORED, Batch, padded
from experiments.data.encode import Encoded, Option, placed
from experiments.data.reader import Reader
from experiments.data.template import Ending, eos
from experiments.objectives.base import Objective
from experiments.objectives.generation import generated
from experiments.objectives.likelihood import packed
from experiments.objectives.token_loss import labelled_logits
from experiments.tasks.base import Example
from experiments.tasks.forms import MEANING

STATES = 1 << 14  # tokens of prompts whose states are given to the decoder at a time


class SequenceToSequence(Objective):
    """−Σ log p(token | prompt, what stands before it in the answer) over the answer's tokens, its end included."""

    family = Family.encoder_decoder

    def encode(self, example: Example) -> Encoded:
        """A prompt for the encoder and an answer for the decoder, each as the tokenizer surrounds a text; both fit
        optim.max_length by themselves."""
        example, encoder = self.asked(example), self.encoder
        with placed(example):
            after = [] if example.messages else encoder.around[1]
            fitted, cut = encoder.fitted(example, encoder.max_length - len(encoder.front) - len(after))
            prompt = [*encoder.front, *encoder.prompt(fitted), *after]
            response = self.answer(example.completion)
        if len(response) > encoder.max_length:
            raise ValueError(
                f"{example.place or 'an example'}: its completion has {len(response)} tokens, "
                f"optim.max_length={encoder.max_length}; raise it or drop the example"
            )
        ending = Ending("", eos(encoder.tokenizer))
        return Encoded(prompt, response, options=self.options(example), cut=cut, ending=ending)

    def asked(self, example: Example) -> Example:
        """The example itself; a chat as a text of a line a turn where the model, as most of these, has no template."""
        if not example.messages or getattr(self.encoder.tokenizer, "chat_template", None):
            return example
        alone = all(turn["role"] in ("system", "user") for turn in example.messages)
        lines = (turn["content"] if alone else f"{turn['role']}: {turn['content']}" for turn in example.messages)
        return replace(example, messages=(), text="\n".join(lines))

    def faults(self, example: Example) -> Iterator[tuple[str, str, bool]]:
        text = self.asked(example)
        yield from super().faults(text)
        if text is not example:
            fields = [*example.context, *(name for turn in example.messages for name in turn if name in MEANING)]
            yield from (("field_not_shown", f"no chat template shows {name!r}", True) for name in fields)

    def answer(self, text: str) -> list[int]:
        """An answer's tokens: as the tokenizer writes a text for the decoder, and an end."""
        tokenizer, end = self.encoder.tokenizer, eos(self.encoder.tokenizer)
        self.encoder.control.checked([text])
        ids = list(tokenizer(text_target=text, split_special_tokens=True)["input_ids"])
        return ids if ids[-1:] == [end] else [*ids, end]

    def options(self, example: Example) -> tuple[Option, ...]:
        """What the answer is chosen from; nothing where it is written."""
        return ()

    def collate(self, rows: Sequence[Encoded], device: torch.device) -> Batch:
        """Labels (B, L); the decoder is given each answer one place later, after the token that it starts from."""
        responses, encoder = [row.response for row in rows], self.encoder
        inputs = {
            "input_ids": padded([row.prompt for row in rows], encoder.pad, device),
            "attention_mask": padded([[1] * len(row.prompt) for row in rows], 0, device),
            "decoder_input_ids": padded([[encoder.start, *one[:-1]] for one in responses], encoder.pad, device),
            "decoder_attention_mask": padded([[1] * len(one) for one in responses], 0, device),
        }
        return Batch(inputs, padded(responses, IGNORED, device))

    def loss_sum(self, model: nn.Module, batch: Batch) -> Tensor:
        return answer_losses(model, batch).sum()

    def n_units(self, batch: Batch) -> int:
        return int((batch.labels != IGNORED).sum())


class Answers(SequenceToSequence):
    """The answer is learned, and written by greedy decoding."""

    kinds = ("generate",)
    writes = True

    def answers(self, reader: Reader, rows: Sequence[Encoded], max_new_tokens: int) -> list[str]:
        return generated(reader, rows, max_new_tokens, self.hopeless)


class AnsweredNumber(Answers):
    """The number's text is learned as an answer, and written."""

    kinds = ("rate",)


class AnsweredLabel(SequenceToSequence):
    """The label's text is learned as an answer; the answer is the label whose text, its end included, is likeliest."""

    kinds = ("classify",)

    def options(self, example: Example) -> tuple[Option, ...]:
        return self.label_options

    @cached_property
    def label_options(self) -> tuple[Option, ...]:
        return tuple(Option(label, self.answer(label)) for label in self.labels)

    def answers(self, reader: Reader, rows: Sequence[Encoded], max_new_tokens: int) -> list[str]:
        return likeliest(reader, rows)


class AnsweredChoice(SequenceToSequence):
    """The right choice is learned as an answer; the answer is the choice that is likeliest a byte, without its end."""

    kinds = ("choose",)

    def options(self, example: Example) -> tuple[Option, ...]:
        return tuple(Option(text, self.answer(text)[:-1], len(text.encode())) for text in example.choices)

    def answers(self, reader: Reader, rows: Sequence[Encoded], max_new_tokens: int) -> list[str]:
        return likeliest(reader, rows)


class AnswerLikelihood(SequenceToSequence):
    """The answer is learned; an answer is '[nll_sum, n_tokens, n_bytes]' of the gold one, nll in nats."""

    kinds = ("respond",)

    def answers(self, reader: Reader, rows: Sequence[Encoded], max_new_tokens: int) -> list[str]:
        losses = answer_losses(reader.model, self.collate(rows, reader.device))
        said = []
        for row, own in zip(rows, losses.split([len(row.response) for row in rows])):
            text = self.encoder.tokenizer.decode(row.response, skip_special_tokens=False)
            said.append(json.dumps([own.sum(dtype=torch.float64).item(), len(own), len(text.encode())]))
        return said


def answer_losses(model: Any, batch: Batch) -> Tensor:
    """The loss of every token of the answers, (M,), row by row."""
    wanted = batch.labels != IGNORED
    logits = labelled_logits(model, model.get_output_embeddings(), batch, wanted)
    return F.cross_entropy(logits.float(), batch.labels[wanted], reduction="none")


@torch.no_grad()
def likeliest(reader: Reader, rows: Sequence[Encoded]) -> list[str]:
    """The option of each row with the highest log-likelihood / size; each prompt is read once."""
    model, encoder, device = cast(Any, reader.model), reader.encoder, reader.device
    ids = padded([row.prompt for row in rows], encoder.pad, device)
    mask = padded([[1] * len(row.prompt) for row in rows], 0, device)
    states = model.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state  # (B, T, D)
    pairs = [(b, i) for b, row in enumerate(rows) for i in range(len(row.options))]
    pairs.sort(key=lambda pair: len(rows[pair[0]].options[pair[1]].ids))
    options = [rows[b].options[i] for b, i in pairs]
    scores = [[0.0] * len(row.options) for row in rows]
    for part in packed([len(option.ids) for option in options], max(1, STATES // ids.shape[1])):
        index = torch.tensor([pairs[k][0] for k in part], device=device)
        said = [options[k].ids for k in part]
        logits = model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states[index]),
            attention_mask=mask[index],
            decoder_input_ids=padded([[encoder.start, *one[:-1]] for one in said], encoder.pad, device),
            decoder_attention_mask=padded([[1] * len(one) for one in said], 0, device),
            use_cache=False,
        ).logits.float()  # (N, L, V)
        labels = padded(said, IGNORED, device)
        losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none").sum(1)
        for k, loss in zip(part, losses.tolist()):
            b, i = pairs[k]
            scores[b][i] = -loss / options[k].size
    return [row.options[of.index(max(of))].text for row, of in zip(rows, scores)]
