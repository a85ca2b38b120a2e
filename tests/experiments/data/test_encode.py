"""Prompts that are too long, and chats whose every turn of the assistant is learned."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from experiments.config.schema import LossOn
from experiments.data.batch import IGNORED
from experiments.data.demonstrations import shown
from experiments.data.encode import Encoder
from experiments.data.shorten import Cut, endings
from experiments.models.tokenizer import CHATML, byte_tokenizer
from experiments.objectives.classification import LabelText
from experiments.objectives.responses import Responses
from experiments.tasks.base import Example

CPU = torch.device("cpu")


def tokenizer(template: str = CHATML) -> Any:
    made = byte_tokenizer()
    made.chat_template = template
    return made


def chat(*contents: str, system: str | None = None, answer: str = "yes") -> Example:
    """Turns of the user and the assistant in turn, the user's first."""
    roles = ("user", "assistant")
    turns = [{"role": roles[i % 2], "content": text} for i, text in enumerate(contents)]
    return Example(messages=(*([{"role": "system", "content": system}] if system else []), *turns), completion=answer)


def text_of(ids: list[int]) -> str:
    return tokenizer().decode(ids)


LONG = chat(
    "Is it red? It may be.",
    "No. It is blue.",
    "And now? Look. Is it?",
    "Yes.",
    "Sure? Quite? Say so.",
    system="Be brief.",
)


def encoded(room: int, example: Example = LONG, loss_on: LossOn = LossOn.last) -> Any:
    n_answer = len("yes") + 1
    return Responses(Encoder(tokenizer(), room + n_answer), loss_on=loss_on).encode(example)


def test_an_answer_that_goes_on_has_no_lines_end_before_it() -> None:
    encoder = Encoder(tokenizer(), 100)
    plain, on = Example(text="The sky is"), Example(text="The sky is", continues=True)
    assert text_of(encoder.prompt(plain)) == "The sky is\n" and text_of(encoder.prompt(on)) == "The sky is"
    (example,) = (shown(on, [Example(text="Snow is", completion=" white", continues=True)]),)
    assert text_of(encoder.prompt(example)) == "Snow is white\n\nThe sky is"


def test_a_long_chat_loses_its_oldest_turns_and_keeps_the_systems() -> None:
    whole = encoded(1000)
    assert whole.cut == Cut()
    row = encoded(len(whole.prompt) - 1)
    assert text_of(row.prompt) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nAnd now? Look. Is it?<|im_end|>\n"
        "<|im_start|>assistant\nYes.<|im_end|>\n<|im_start|>user\nSure? Quite? Say so.<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert row.cut == Cut(turns=2, tokens=len(whole.prompt) - len(row.prompt))


def test_then_whole_sentences_of_the_last_turn_and_at_last_words() -> None:
    last = encoded(len(encoded(1000, chat("Sure? Quite? Say so.", system="Be brief.")).prompt))
    assert last.cut.turns == 4 and last.cut.sentences == 0
    shorter = encoded(len(last.prompt) - 1)
    assert text_of(shorter.prompt).endswith("<|im_start|>user\nQuite? Say so.<|im_end|>\n<|im_start|>assistant\n")
    assert (shorter.cut.turns, shorter.cut.sentences) == (4, 1)
    one_word = encoded(len(last.prompt) - len("Sure? Quite? Say "))
    assert text_of(one_word.prompt).endswith("<|im_start|>user\nso.<|im_end|>\n<|im_start|>assistant\n")
    assert (one_word.cut.turns, one_word.cut.sentences) == (4, 2)
    assert text_of(one_word.prompt).startswith("<|im_start|>system\nBe brief.")
    with pytest.raises(ValueError, match=r"its prompt cannot be cut to \d+ tokens.*optim.max_length=\d+.*drop"):
        encoded(len(one_word.prompt) - 1)


@given(st.integers(1, 200))
def test_a_prompt_that_was_cut_fits_and_its_count_is_right(room: int) -> None:
    whole = encoded(1000)
    try:
        row = encoded(room)
    except ValueError:
        assert room < len(whole.prompt)
        return
    assert len(row.prompt) <= room
    assert row.cut.tokens == len(whole.prompt) - len(row.prompt)
    assert text_of(row.prompt).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n")


@given(st.text(alphabet="ab.?! \n", max_size=30))
def test_endings_are_ever_shorter_ends_of_the_text(text: str) -> None:
    shorter = [text, *(text[start:] for start, _ in endings(text))]
    assert all(len(b) < len(a) and a.endswith(b) and b.strip() for a, b in pairwise(shorter))
    counts = [n for _, n in endings(text)]
    assert counts == sorted(counts)


def test_text_without_spaces_loses_sentences() -> None:
    row = encoded(40, Example(text="你好今天。" * 20, completion="yes"))
    assert text_of(row.prompt) == "你好今天。" * 2 + "\n"
    assert (row.cut.turns, row.cut.sentences) == (0, 18)


def test_a_second_text_is_cut_after_the_first() -> None:
    row = encoded(12, Example(text="One. Two.", text_pair="Three. Four is.", completion="yes"))
    assert text_of(row.prompt) == "Two.\nis.\n"
    assert row.cut.sentences == 2


def test_a_long_text_is_not_copied_for_each_of_its_words() -> None:
    tracemalloc.start()
    encoded(20, Example(text="a b c d e f\n" * 1_500, completion="yes"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30e6  # a copy for each of 9,000 words would take 80 MB


def learned_text(row: Any, objective: Responses) -> str:
    (labels,) = objective.collate([row], CPU).labels.tolist()
    return "".join(text_of([label]) if label != IGNORED else "~" for label in labels)


def test_every_turn_of_the_assistant_is_learned_with_its_end() -> None:
    example = chat("Hi", "Hello", "Red?", "No", "Blue?", system="Hello is a word.")
    objective = Responses(Encoder(tokenizer(), 500, front=(7, 8)), loss_on=LossOn.all)
    row = objective.encode(example)
    assert [text_of([row.prompt[i] for i in places]) for places in row.learned] == ["Hello<|im_end|>", "No<|im_end|>"]
    text = learned_text(row, objective)
    assert text.replace("~", "") == "Hello<|im_end|>No<|im_end|>yes<|im_end|>"
    last = Responses(Encoder(tokenizer(), 500, front=(7, 8)))
    assert learned_text(last.encode(example), last).replace("~", "") == "yes<|im_end|>"
    batch = objective.collate([row], CPU)
    assert objective.n_units(batch) == len("Hello") + len("No") + len("yes") + 3
    assert batch.inputs["input_ids"].tolist() == last.collate([last.encode(example)], CPU).inputs["input_ids"].tolist()


@pytest.mark.parametrize("content", ["Yes.\n", " Yes. ", "Yes.  \n\n"])
def test_the_end_is_learned_whatever_space_stands_before_it(content: str) -> None:
    objective = Responses(Encoder(tokenizer(), 500), loss_on=LossOn.all)
    (places,) = objective.encode(chat("Sure?", content, "And?")).learned
    assert (
        text_of([objective.encode(chat("Sure?", content, "And?")).prompt[i] for i in places]) == f"{content}<|im_end|>"
    )


def test_an_empty_turn_teaches_its_end() -> None:
    objective = Responses(Encoder(tokenizer(), 500), loss_on=LossOn.all)
    row = objective.encode(chat("Sure?", "", "And?"))
    assert learned_text(row, objective).replace("~", "") == "<|im_end|>yes<|im_end|>"


def test_turns_end_as_the_template_ends_them() -> None:
    objective = Responses(Encoder(tokenizer(CHATML.replace("<|im_end|>", "</s>")), 500), loss_on=LossOn.all)
    row = objective.encode(chat("Sure?", "Yes", "And?"))
    assert learned_text(row, objective).replace("~", "") == "Yes</s>yes</s><|im_end|>"  # </s> is no token of its own


def test_turns_that_were_cut_are_not_learned() -> None:
    example = chat("Hi there, how are you?", "Fine", "Red?", "No", "Blue?")
    whole = encoded(1000, example, LossOn.all)
    row = encoded(len(whole.prompt) - 1, example, LossOn.all)
    assert [text_of([row.prompt[i] for i in places]) for places in row.learned] == ["No<|im_end|>"]


def test_a_template_that_rewrites_earlier_turns_is_refused_for_all_turns() -> None:
    template = CHATML.replace("{{ m['content'] }}", "{{ m['content'] if loop.last else m['content'][:1] }}")
    example = Example(messages=chat("Hi", "Hello", "Red?").messages, completion="no", place="chats.jsonl:4")
    objective = Responses(Encoder(tokenizer(template), 500), loss_on=LossOn.all)
    with pytest.raises(ValueError, match=r"chats.jsonl:4: the chat template does not keep turn 2 .* use loss_on=last"):
        objective.encode(example)


def test_a_long_turn_before_a_tools_answer_is_cut_too():
    """No turn can go whole: the user's opens the chat, and the tool's answer is what is asked about."""
    turns = (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "First a story. " * 30 + "What is the weather?"},
        {"role": "assistant", "content": "call weather"},
        {"role": "tool", "content": "It rains. It is cold."},
    )
    whole = Example(messages=turns, completion="Rain.")
    encoder = Encoder(tokenizer(), 512)
    version, cut = encoder.fitted(whole, 200)
    assert [turn["role"] for turn in version.messages] == ["system", "user", "assistant", "tool"]
    assert version.messages[1]["content"].endswith("What is the weather?")
    assert version.messages[3] == turns[3]
    assert cut.turns == 0 < cut.sentences
    shorter, _ = encoder.fitted(whole, len(encoder.prompt(version)) - 25)
    assert len(encoder.prompt(shorter)) < len(encoder.prompt(version))


def test_what_is_too_long_is_named():
    objective = LabelText(Encoder(tokenizer(), 30), ("no", "a label of more than thirty letters"))
    with pytest.raises(ValueError, match=r"its option 'a label of more than thirty letters' has \d+ tokens"):
        objective.encode(Example(text="x", completion="no"))
