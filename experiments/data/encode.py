"""From an example's texts to tokens: what a prompt becomes, how a long one is shortened, which turns are learned."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from experiments.tasks.base import Example

SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])(?![。！？」』”])\s*|\n+")
WORD_END = re.compile(r"\s+")


@dataclass(frozen=True)
class Option:
    """An answer to choose; the one with the highest log-likelihood / size is taken."""

    text: str
    ids: list[int]
    size: int = 1


@dataclass(frozen=True)
class Cut:
    """What a prompt lost to optim.max_length: whole turns, whole sentences of what is left, and the tokens of both."""

    turns: int = 0
    sentences: int = 0
    tokens: int = 0


@dataclass(frozen=True)
class Encoded:
    """One encoded example: ids of the prompt and, after them, of the response; of a task head a class or number."""

    prompt: list[int]
    response: list[int] = field(default_factory=list)
    segments: list[int] | None = None  # BERT's token types of the prompt
    label: float | None = None  # a class, as an int, or the number to be told
    options: tuple[Option, ...] = ()  # what the answer is chosen from; none: it is generated
    learned: tuple[range, ...] = ()  # places in the prompt that are learned too: earlier turns of the assistant
    cut: Cut = Cut()

    @property
    def n_tokens(self) -> int:
        return len(self.prompt) + len(self.response)


@dataclass(frozen=True)
class Encoder:
    """Turns texts into ids.

    front: reserved ids of a trained prompt, put before every row. max_length: tokens of a row, front included.
    """

    tokenizer: Any
    max_length: int
    front: tuple[int, ...] = ()

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    @property
    def end(self) -> int:
        if self.tokenizer.eos_token_id is None:
            raise ValueError(
                "the tokenizer has no eos_token, so no response could end; set one in the model's directory"
            )
        return self.tokenizer.eos_token_id

    @property
    def pad(self) -> int:
        tokenizer = self.tokenizer
        return tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def prompt(self, example: Example) -> list[int]:
        """The ids a response is asked for after: chat turns by the template, plain text up to a line's end, or to where
        the answer goes on."""
        if example.messages:
            return self.tokenizer.apply_chat_template(
                list(example.messages), add_generation_prompt=True, return_dict=True
            )["input_ids"]
        if example.continues:
            return self.tokenizer(example.text)["input_ids"]
        text = example.prompt_text
        return self.tokenizer(text if text[-1:].isspace() else text + "\n")["input_ids"]

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
        versions = shortened(example)
        chosen = bisect_left(range(len(versions)), -room, key=lambda i: -len(self.prompt(versions[i][0]())))
        if chosen == len(versions):
            raise ValueError(
                f"{example.place or 'an example'}: its prompt cannot be cut to {room} tokens, which is what "
                f"optim.max_length={self.max_length} leaves beside its answer; raise it or drop the example"
            )
        make, cut = versions[chosen]
        version = make()
        return version, replace(cut, tokens=whole - len(self.prompt(version)))

    def rendered(self, turns: Sequence[dict[str, str]]) -> str:
        """The text that the chat template makes of turns, up to where the assistant is to speak."""
        return self.tokenizer.apply_chat_template(list(turns), add_generation_prompt=True, tokenize=False)

    def assistant_turns(self, example: Example) -> tuple[range, ...]:
        """The places, in the prompt's ids, of what the assistant says in earlier turns, the end of each turn included.

        Raises ValueError where the template writes earlier turns otherwise than it wrote them as the last one.
        """
        turns = example.messages
        spoken = [i for i, turn in enumerate(turns) if turn["role"] == "assistant"]
        if not spoken:
            return ()
        if not self.tokenizer.is_fast:
            raise ValueError("loss_on=all needs a fast tokenizer, which tells where its tokens stand; use loss_on=last")
        whole = self.rendered(turns)
        encoded = self.tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
        offsets, places = encoded["offset_mapping"], []
        for i in spoken:
            before, content = self.rendered(turns[:i]) if i else "", turns[i]["content"].strip()
            start = whole.find(content, len(before))
            if not whole.startswith(before) or start < 0 or whole[len(before) : start].strip():
                raise ValueError(
                    f"{example.place or 'an example'}: the chat template does not keep turn {i + 1} as it was asked "
                    "for, so loss_on=all cannot find what to learn there; use loss_on=last"
                )
            stop = start + len(content)
            first = next(k for k, (_, b) in enumerate(offsets) if b > len(before))
            # There may be space before the turn's end, the answer's own or the template's.
            end = next((k for k, (a, b) in enumerate(offsets) if a >= stop and whole[a:b].strip()), None)
            if end is None or encoded["input_ids"][end] != self.end:
                raise ValueError(
                    f"{example.place or 'an example'}: the chat template does not end turn {i + 1} with the "
                    "tokenizer's eos_token, so loss_on=all cannot teach where it ends; use loss_on=last"
                )
            places.append(range(first, end + 1))
        return tuple(places)


def shortened(example: Example) -> list[tuple[Callable[[], Example], Cut]]:
    """Ever shorter versions of an example's prompt: fewer turns, then fewer sentences, then fewer words.

    A version is made when it is asked for: a long text has as many as it has words.
    """
    versions: list[tuple[Callable[[], Example], Cut]] = []
    n_turns = 0
    if example.messages:
        n_system = next((i for i, turn in enumerate(example.messages) if turn["role"] != "system"), 0)
        system, others = example.messages[:n_system], example.messages[n_system:]
        # A template may insist that the user begins.
        for start in (i for i in range(1, len(others)) if others[i]["role"] == "user"):
            example, n_turns = replace(example, messages=(*system, *others[start:])), start
            versions.append((partial(replace, example), Cut(turns=n_turns)))
    shortest: Callable[[], Example] = partial(replace, example)
    n_sentences = 0
    for place in places(example):
        before, n_before = shortest, n_sentences
        for start, n in endings(text_at(example, place)):
            shortest, n_sentences = partial(without_beginning, before, place, start), n_before + n
            versions.append((shortest, Cut(n_turns, n_sentences)))
    return versions


def places(example: Example) -> list[int | str]:
    """Where a prompt may lose its beginning, in this order: its texts; of a chat the turn that opens it, after the
    system's, and then the last one, before which others may stand, as a tool's answer is."""
    if not example.messages:
        return ["text"] if example.text_pair is None else ["text", "text_pair"]
    last = len(example.messages) - 1
    first = next((i for i, turn in enumerate(example.messages) if turn["role"] != "system"), last)
    return list(dict.fromkeys([first, last]))


def text_at(example: Example, place: int | str) -> str:
    return getattr(example, place) if isinstance(place, str) else example.messages[place]["content"]


def without_beginning(make: Callable[[], Example], place: int | str, start: int) -> Example:
    """The example that is made, without what stands before this character of the text at the place."""
    example = make()
    rest = text_at(example, place)[start:]
    if isinstance(place, str):
        return replace(example, **{place: rest})
    turns = list(example.messages)
    turns[place] = {**turns[place], "content": rest}
    return replace(example, messages=tuple(turns))


def endings(text: str) -> list[tuple[int, int]]:
    """Where the text begins without its first sentences, and how many these are; then without the last one's words."""
    length = len(text.rstrip())
    starts = [match.end() for match in SENTENCE_END.finditer(text) if match.end() < length]
    last = starts[-1] if starts else 0
    words = [match.end() for match in WORD_END.finditer(text, last) if last < match.end() < length]
    return [(start, n) for n, start in enumerate(starts, 1)] + [(start, len(starts)) for start in words]
