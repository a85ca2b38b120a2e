"""From an example's texts to tokens: what a prompt becomes, how a long one is shortened, which turns are learned."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from experiments.config.schema import TODAY
from experiments.data.control_words import ControlWords, Refused
from experiments.data.shorten import Cut, longest_within, shortened
from experiments.data.template import Chat, Ending, ModelFault, Template, eos, name_of, strings
from experiments.tasks.base import Example
from experiments.tasks.forms import MEANING


@dataclass(frozen=True)
class Option:
    """An answer to choose; the one with the highest log-likelihood / size is taken."""

    text: str
    ids: list[int]
    size: int = 1


@dataclass(frozen=True)
class Encoded:
    """One encoded example: ids of the prompt and, after them, of the response; of a task head a class or number."""

    prompt: list[int]
    response: list[int] = field(default_factory=list)
    segments: list[int] | None = None  # BERT's token types of the prompt
    label: float | None = None  # a class, as an int, or the number to be told
    options: tuple[Option, ...] = ()  # what the answer is chosen from; none: it is generated
    learned: tuple[range, ...] = ()  # places in the prompt that are learned too: earlier turns of the assistant
    cut: Cut = field(default_factory=Cut)
    ending: Ending | None = None  # what ends a response that is written; None: the tokenizer's eos alone

    @property
    def n_tokens(self) -> int:
        return len(self.prompt) + len(self.response)


@contextmanager
def placed(example: Example) -> Iterator[None]:
    """What is refused in the block is a ValueError that names the example."""
    try:
        yield
    except Refused as error:
        raise ValueError(f"{example.place or 'an example'}: {error}") from error


@dataclass(frozen=True)
class Encoder:
    """Turns texts into ids; what a template or a tokenizer has against them is Refused, without their place: `placed`.

    front: reserved ids of a trained prompt, put before every row. max_length: tokens of a row, front included. today:
    the date that a chat template is told. decoder_start: what the decoder of an encoder-decoder starts from.
    """

    tokenizer: Any
    max_length: int
    front: tuple[int, ...] = ()
    today: str = TODAY
    decoder_start: int | None = None

    @cached_property
    def control(self) -> ControlWords:
        return ControlWords(self.tokenizer)

    @cached_property
    def template(self) -> Template:
        return Template(self.tokenizer, self.today)

    @cached_property
    def around(self) -> tuple[list[int], list[int]]:
        """The special tokens that the tokenizer puts before a text, and those that it puts after one."""
        bare, whole = self.ids("a"), list(self.tokenizer("a")["input_ids"])
        start = next((i for i in range(len(whole)) if whole[i : i + len(bare)] == bare), 0)
        return whole[:start], whole[start + len(bare) :]

    def ids(self, text: str) -> list[int]:
        """The ids of a text of the data alone: what in it looks like a special token is text."""
        return self.control.ids(text)

    def text_ids(self, text: str) -> list[int]:
        """The ids of a text that goes on: with what the tokenizer puts before it, and nothing after."""
        return [*self.around[0], *self.ids(text)]

    @property
    def pad(self) -> int:
        """The id that fills rows up. Raises ModelFault where there is none."""
        tokenizer = self.tokenizer
        return eos(tokenizer) if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    @property
    def start(self) -> int:
        if self.decoder_start is None:
            raise ModelFault(
                f"the model at {name_of(self.tokenizer)} names no token that its decoder starts from; give it a "
                "decoder_start_token_id in its generation_config.json"
            )
        return self.decoder_start

    def ending(self, example: Example) -> Ending:
        """What ends the example's answer: of a chat what the template writes, else the tokenizer's eos."""
        return self.template.ending if example.messages else Ending("", eos(self.tokenizer))

    def answer(self, example: Example, text: str) -> list[int]:
        """The ids of an answer to the example, what ends it included."""
        if example.messages:
            return self.template.answer(text)
        return [*self.ids(text), *self.ending(example).tokens]

    def begun(self, example: Example, text: str) -> list[int]:
        """The ids of an answer to the example, without an end."""
        return self.template.begun(text) if example.messages else self.ids(text)

    def prompt(self, example: Example) -> list[int]:
        """The ids a response is asked for after: chat turns by the template, plain text up to a line's end, or to where
        the answer goes on. Raises Refused."""
        if example.messages:
            return self.chat(example).ids
        text = example.text if example.continues else example.prompt_text
        return self.text_ids(text if example.continues or text[-1:].isspace() else text + "\n")

    def chat(self, example: Example, spans: bool = False) -> Chat:
        return self.template.read(example.messages, example.context, spans)

    def fitted(self, example: Example, room: int) -> tuple[Example, Cut]:
        """The example with a prompt of at most `room` tokens, and what it lost.

        A chat loses its oldest turns, but for the system's, then sentences from the beginning of the turn that opens
        what is left, and then of the last one; a text loses sentences from its beginning, and a second text from its
        own. A single sentence that is too long loses words. What the chat template puts around the turns stays.
        Raises ValueError where not even the last word fits.
        """
        whole = len(self.prompt(example))
        if whole <= room:
            return example, Cut()
        chosen = longest_within(shortened(example), lambda version: len(self.prompt(version)) <= room)
        if chosen is None:
            raise ValueError(
                f"{example.place or 'an example'}: its prompt cannot be cut to {room} tokens, which is what "
                f"optim.max_length={self.max_length} leaves beside its answer; raise it or drop the example"
            )
        version = chosen.made()
        return version, Cut(chosen.turns, chosen.sentences, whole - len(self.prompt(version)))

    def assistant_turns(self, example: Example) -> tuple[range, ...]:
        """The places, in the prompt's ids, of what the assistant says in earlier turns, the end of each turn included;
        turns of weight 0 are left out.

        Raises ValueError where the template writes earlier turns otherwise than it wrote them as the last one.
        """
        turns = example.messages
        spoken = [i for i, turn in enumerate(turns) if turn["role"] == "assistant" and turn.get("weight", 1)]
        if not spoken:
            return ()
        if not self.tokenizer.is_fast:
            raise ModelFault("loss_on=all needs a fast tokenizer, which tells where its tokens stand: use loss_on=last")
        chat, ending, place = self.chat(example, spans=True), self.template.ending, example.place or "an example"
        word = "" if ending.token is None else self.tokenizer.convert_ids_to_tokens(ending.token)
        closings = [one for one in (f"{ending.text}{word}".strip(), ending.text.strip()) if one]
        places = []
        for i in spoken:
            before = self.template.rendered(turns[:i], True, example.context) if i else ""
            content = turns[i]["content"].strip()
            start = chat.text.find(content, len(before))
            if not chat.text.startswith(before) or start < 0 or chat.text[len(before) : start].strip():
                raise ValueError(
                    f"{place}: the chat template does not keep turn {i + 1} as it was asked for, so loss_on=all cannot "
                    "find what to learn there; use loss_on=last"
                )
            # There may be space before the turn's end, the answer's own or the template's.
            rest = chat.text[start + len(content) :]
            closing = next((one for one in closings if rest.lstrip().startswith(one)), "")
            if not closing:
                raise ValueError(
                    f"{place}: the chat template ends turn {i + 1} otherwise than by {closings[0]!r}, as the last, "
                    "so loss_on=all cannot teach where it ends; use loss_on=last"
                )
            stop = len(chat.text) - len(rest.lstrip()) + len(closing)
            inside = [k for k, (a, b) in enumerate(chat.spans) if b > len(before) and a < stop]
            places.append(range(inside[0], inside[-1] + 1))
        return tuple(places)

    def faults(self, example: Example) -> Iterator[tuple[str, str, bool]]:
        """What of the example does not reach the model as it stands: kind, message, and whether it means something.

        Control words are taken as text; a field of a turn, or of the record, may not be shown by the template.
        """
        if not example.messages:
            words = self.control.within([example.text, example.text_pair or "", example.completion])
        else:
            words = self.template.control.within([*strings([*example.messages, example.context]), example.completion])
            for name, where in self.template.unshown(example.messages, example.context):
                yield (
                    "field_not_shown",
                    f"the chat template does not show {name!r} {where}",
                    name in (*MEANING, "content"),
                )
        if words:
            yield "control_word", f"taken as text: {', '.join(map(repr, words))}", False
