"""The chat template of a tokenizer, read by rendering: what it writes around an answer, and what it shows of a record.

Nothing is known of a template by its name: a chat of marks is rendered, and what stands around the marks is taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import Any

from jinja2.exceptions import TemplateError

from experiments.config.schema import TODAY
from experiments.data.control_words import ControlWords, Refused, Span

Turn = Mapping[str, Any]
ASKED, ANSWER, NEXT = "ASKED7Q", "ANSWER7A", "NEXT7Q"  # marks: words that a template writes as they are
OURS = ("weight",)  # fields of a turn that say what is learned of it, which no template is told
NOT_SHOWN = ("role", "content", "tool_call_id", "id", *OURS)  # fields that a template need not write
OPEN, CLOSE = "\ue0f0", "\ue0f1"  # code points of private use, around the number of a control word that is masked
MASKED = re.compile(f"{OPEN}(\\d+){CLOSE}")
DIRECTIVES = [*"aAbBcdDeFgGhHIjmMnpSTuUVwWxXyYzZ", *(f"-{letter}" for letter in "dmHIMSj")]  # what strftime knows


class ModelFault(ValueError):
    """What a model, or its tokenizer, lacks for what is asked of it; no record is at fault."""


@dataclass(frozen=True)
class Ending:
    """What ends an answer: text, which is "" of most templates, and a token; None where text alone does."""

    text: str = ""
    token: int | None = None

    @property
    def tokens(self) -> list[int]:
        return [] if self.token is None else [self.token]


@dataclass(frozen=True)
class Chat:
    """Turns as the model reads them. spans: where in the text each token stands; () unless they were asked for."""

    text: str
    ids: list[int]
    spans: Sequence[Span] = ()


@dataclass(frozen=True)
class Template:
    """The chat template of a tokenizer. today: the date that one which asks for it is told, as 2026-01-31."""

    tokenizer: Any
    today: str = TODAY

    def source(self, tools: Any = None) -> str:
        """The template's own text, told the date where it asks for one. Raises ModelFault where there is none."""
        if not getattr(self.tokenizer, "chat_template", None):
            raise ModelFault(
                f"the model at {name_of(self.tokenizer)} has no chat template, which records of turns need: take one "
                "that was made for chats, write a chat_template.jinja into its directory, or give records of prompt "
                "and completion"
            )
        try:
            text = self.tokenizer.get_chat_template(tools=tools)
        except ValueError as error:  # there are several templates and none is the default one
            raise ModelFault(f"the model at {name_of(self.tokenizer)}: {error}") from error
        # The line's end goes with the block before it, so that the template begins where a line begins.
        return f"{clock(self.today)}\n{text}" if "strftime_now" in text else text

    def rendered(self, turns: Sequence[Turn], asked: bool = True, context: Turn | None = None) -> str:
        """The text of the turns and, where they are `asked`, of what opens the assistant's. Raises Refused."""
        given = dict(context or {})
        given |= given.pop("chat_template_kwargs", {})
        plain = [{name: value for name, value in turn.items() if name not in OURS} for turn in turns]
        source = self.source(given.get("tools"))
        try:
            return self.tokenizer.apply_chat_template(
                plain, **{**given, "add_generation_prompt": asked, "tokenize": False, "chat_template": source}
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise Refused(f"the chat template refuses its turns: {error}") from error

    def read(self, turns: Sequence[Turn], context: Turn | None = None, spans: bool = False) -> Chat:
        """The turns up to where the assistant's answer begins; control words that stand in them are text."""
        words = self.control.within(strings([*turns, context or {}]))
        if not words:
            text, places = self.rendered(turns, True, context) + self.lead, []
        else:
            words.append(OPEN)  # where the data has one, it is masked as well
            pattern = re.compile(f"{self.control.pattern.pattern}|{OPEN}")
            hidden = masked([*turns, context or {}], lambda word: f"{OPEN}{words.index(word[0])}{CLOSE}", pattern)
            text, places = "", []
            for i, piece in enumerate(MASKED.split(self.rendered(hidden[:-1], True, hidden[-1]) + self.lead)):
                places += [len(text) + 1] if i % 2 else []
                text += words[int(piece)] if i % 2 else piece
        return Chat(text, *self.control.broken(text, places, spans))

    # ------------------------------------------------------------ around an answer

    @cached_property
    def probes(self) -> tuple[str, str, str]:
        """A question; with its answer, which is the last turn; with a question after it. Raises ModelFault."""
        turns = [{"role": "user", "content": ASKED}, {"role": "assistant", "content": ANSWER}]
        try:
            opened, closed = self.rendered(turns[:1]), self.rendered(turns, asked=False)
            between = self.rendered([*turns, {"role": "user", "content": NEXT}], asked=False)
        except Refused as error:
            raise ModelFault(
                f"the model at {name_of(self.tokenizer)}: its chat template cannot write a question and its answer: "
                f"{error.__cause__}"
            ) from error
        if ANSWER not in closed:
            raise ModelFault(
                f"the model at {name_of(self.tokenizer)}: its chat template does not write what the assistant says; "
                "mend its chat_template"
            )
        return opened, closed, between

    @cached_property
    def ending(self) -> Ending:
        """What stands after an answer, whether or not other turns follow: up to its first token that is a control word,
        or text, or, where it is white space alone, the tokenizer's eos."""
        _, closed, between = self.probes
        last = closed.partition(ANSWER)[2]
        inner = between.partition(ANSWER)[2].partition(NEXT)[0] or last  # some write earlier answers otherwise
        for text in (common(last, inner), last):
            if match := self.added.search(text):
                return Ending(text[: match.start()], self.tokenizer.convert_tokens_to_ids(match[0]))
        if text := plain_ending(last, inner, between.partition(ASKED)[0]):
            return Ending(text, self.tokenizer.eos_token_id)
        return Ending("", eos(self.tokenizer))

    @cached_property
    def lead(self) -> str:
        """What stands before an answer that the template does not open the assistant's turn with: an empty thought, the
        name of a channel. It is given with the prompt, so that what is learned and what is written begin alike."""
        return self.between if self.between.strip() else ""

    @cached_property
    def gap(self) -> str:
        """The white space that the template writes before an answer, which is learned and written with it."""
        return "" if self.between.strip() else self.between

    @cached_property
    def between(self) -> str:
        """What stands between the opening of the assistant's turn and its answer."""
        opened, closed, _ = self.probes
        before = closed.partition(ANSWER)[0]
        return before.removeprefix(opened) if before.startswith(opened) else ""

    @cached_property
    def added(self) -> re.Pattern[str]:
        """Matches the tokens that were added to the vocabulary, which stand in a text as they are; not those of white
        space, which answers have too."""
        added = map(str, getattr(self.tokenizer, "added_tokens_decoder", {}).values())
        words = sorted(filter(str.strip, added), key=lambda word: (-len(word), word))
        return re.compile("|".join(map(re.escape, words)) or "(?!)")

    @cached_property
    def control(self) -> ControlWords:
        """The control words, those among them that the template writes and the tokenizer does not call special."""
        return ControlWords(self.tokenizer, tuple(dict.fromkeys(self.added.findall(self.probes[2]))))

    def answer(self, text: str) -> list[int]:
        """The ids of an answer after a prompt, what ends it included."""
        return [*self.begun(f"{text}{self.ending.text}"), *self.ending.tokens]

    def begun(self, text: str) -> list[int]:
        """The ids of an answer after a prompt, without an end."""
        return self.control.ids(f"{self.gap}{text}", first=not self.gap)

    # ------------------------------------------------------------ what of a record is shown

    def unwritten(self, turns: Sequence[Turn], context: Turn | None = None) -> list[int]:
        """The turns whose content is not written: of a role that the template does not know, or earlier ones."""
        marks = {i: f"SAID{i}Q" for i, turn in enumerate(turns) if turn["content"]}
        try:
            said = self.rendered([{**t, "content": marks.get(i, "")} for i, t in enumerate(turns)], True, context)
        except Refused:
            return []  # it looks into what is said
        return [i for i, mark in marks.items() if mark not in said.upper()]

    def unshown(self, turns: Sequence[Turn], context: Turn | None = None) -> Iterator[tuple[str, str]]:
        """What has a value and is not in the text, each with where it stands. Raises Refused."""
        given = dict(context or {})
        yield from (("content", f"of turn {i + 1}, {turns[i]['role']!r}") for i in self.unwritten(turns, given))
        options = given.get("chat_template_kwargs", {})
        others = [
            *(
                (name, f"of turn {i + 1}", [*turns[:i], without(turn, name), *turns[i + 1 :]], given)
                for i, turn in enumerate(turns)
                for name in turn
                if name not in NOT_SHOWN and not (name == "name" and turn["role"] == "tool")
            ),
            *((name, "of the record", turns, without(given, name)) for name in given if name != "chat_template_kwargs"),
            *(
                (name, "of chat_template_kwargs", turns, {**given, "chat_template_kwargs": without(options, name)})
                for name in options
            ),
        ]
        whole = self.rendered(turns, True, given) if others else ""
        for name, where, fewer, less in others:
            try:
                if self.rendered(fewer, True, less) == whole:
                    yield name, where
            except Refused:
                continue  # the template needs it


def plain_ending(last: str, inner: str, opening: str) -> str:
    """What stands after an answer where no token of its own ends it. last: after the last turn; inner: between it and
    the next; opening: before the first, which ends in what opens a turn as `inner` does."""
    if inner.startswith(last.rstrip()):
        return last.rstrip()
    header = common(inner[::-1], opening[::-1])
    end = inner.removesuffix(header[::-1]).rstrip()
    return end if end and last.startswith(end) else last.rstrip()


def common(a: str, b: str) -> str:
    """The beginning that two texts share."""
    return a[: next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))]


def eos(tokenizer: Any) -> int:
    """The tokenizer's end of a text. Raises ModelFault where there is none."""
    if tokenizer.eos_token_id is None:
        raise ModelFault(
            f"the model at {name_of(tokenizer)}: its tokenizer has no eos_token, so no answer could end; name one in "
            "the model's tokenizer_config.json"
        )
    return tokenizer.eos_token_id


def name_of(tokenizer: Any) -> str:
    return str(getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__)


def clock(today: str) -> str:
    """What tells a template that date, at midnight, in place of the day on which it is rendered."""
    then = date.fromisoformat(today)
    steps = "".join(f' | replace("%{name}", "{then.strftime(f"%{name}").strip()}")' for name in DIRECTIVES)
    return f"{{% macro strftime_now(format) %}}{{{{ format{steps} }}}}{{% endmacro %}}"


def without(fields: Turn, name: str) -> dict[str, Any]:
    return {other: value for other, value in fields.items() if other != name}


def strings(value: Any) -> Iterator[str]:
    """Every text in nested values, the roles of turns left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for name, inner in value.items() if name != "role" for text in strings(inner))
    elif isinstance(value, Sequence):
        yield from (text for inner in value for text in strings(inner))


def masked(value: Any, mask: Callable[[re.Match[str]], str], words: re.Pattern[str]) -> Any:
    """The same nested values with a mask in the place of each word."""
    if isinstance(value, str):
        return words.sub(mask, value)
    if isinstance(value, Mapping):
        return {name: inner if name == "role" else masked(inner, mask, words) for name, inner in value.items()}
    return [masked(inner, mask, words) for inner in value] if isinstance(value, Sequence) else value
