"""Rows of public multiple choices as examples: the choices are continuations, as they are scored by likelihood.

Prompts are those of lm-evaluation-harness, with one difference: WinoGrande's options are scored with all that follows
them ("full"), not by what follows alone. The files of LLM-Adapters, {"instruction", "output", "answer"}, are read too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from experiments.tasks.base import Example, TaskError
from experiments.tasks.public.rows import Row

CORRECT = "the correct answer is {}"  # how LLM-Adapters has an answer said


def chosen(row: Row, prompt: str, choices: Sequence[str], right: int, **more: str) -> Example:
    """An example whose choices go on where the prompt ends."""
    texts = tuple(f" {choice}" for choice in choices)
    return Example(completion=texts[right], text=prompt, choices=texts, continues=True, place=row.place, **more)  # type: ignore[arg-type]


def named(text: str) -> str:
    """A short name for a long text, by which it is a group."""
    return hashlib.sha256(" ".join(text.split()).encode()).hexdigest()[:12]


def adapted(row: Row) -> Example | None:
    """A row of LLM-Adapters: the choices stand in the instruction's "Answer format: a/b/c". None of another dataset."""
    if not {"instruction", "answer"} <= row.values.keys():
        return None
    instruction, answer = row.text("instruction"), row.text("answer")
    formats = re.findall(r"Answer format:\s*(\S+(?:/\S+)+)", instruction)
    choices = formats[-1].split("/") if formats else []
    if answer not in choices:
        raise TaskError(f"{row.place}: column 'answer' is {answer!r}, which 'instruction' does not offer: {choices}")
    texts = tuple(CORRECT.format(choice) for choice in choices)
    return Example(completion=CORRECT.format(answer), text=instruction, choices=texts, place=row.place)


def boolq(row: Row) -> Example:
    right = row.one_of("answer" if "answer" in row.values else "label", ("False", "True"))
    passage, question = row.text("passage"), row.text("question").rstrip("?")
    prompt = f"{passage}\nQuestion: {question}?\nAnswer:"
    return chosen(row, prompt, ("no", "yes"), int(right == "True"), group=named(passage))


def piqa(row: Row) -> Example:
    right = row.one_of("label", ("sol1", "sol2"))
    choices = row.text("sol1"), row.text("sol2")
    return chosen(row, f"Question: {row.text('goal')}\nAnswer:", choices, int(right == "sol2"))


def siqa(row: Row) -> Example:
    columns = ("answerA", "answerB", "answerC")
    right = columns.index(row.one_of("label", columns, first=1))
    prompt = f"Q: {row.text('context')} {row.text('question')}\nA:"
    return chosen(row, prompt, [row.text(column) for column in columns], right, group=named(row.text("context")))


def hellaswag(row: Row) -> Example:
    endings = [cleaned(ending) for ending in row.texts("endings")]
    right = int(row.one_of("label", [str(i) for i in range(len(endings))]))
    context = f"{row.get('ctx_a') or ''} {(row.get('ctx_b') or '').capitalize()}"
    prompt = cleaned(f"{row.text('activity_label')}: {context.strip()}")
    return chosen(row, prompt, endings, right, group=str(row.values.get("source_id") or ""))


def cleaned(text: str) -> str:
    """WikiHow's marks taken out."""
    return " ".join(re.sub(r"\[.*?\]", "", text.replace(" [title]", ". ")).split())


def winogrande(row: Row) -> Example:
    before, gap, after = row.text("sentence").partition("_")
    if not gap:
        raise TaskError(f"{row.place}: column 'sentence' has no gap, which is written _")
    right = row.one_of("answer", ("1", "2"))
    choices = [f"{row.text(column)}{after}" for column in ("option1", "option2")]
    return chosen(row, before.strip(), choices, int(right == "2"))


def lettered(row: Row, question: str, prompt: str) -> Example:
    """ARC and OpenBookQA: choices {"text", "label"}, and the key of the right one."""
    given = row.get("choices")
    if (
        not isinstance(given, dict)
        or len(given.get("text", ())) != len(given.get("label", ()))
        or not given.get("text")
    ):
        raise TaskError(f"{row.place}: column 'choices' must have 'text' and 'label', lists of one length: {given!r}")
    labels = [str(label) for label in given["label"]]
    right = labels.index(row.one_of("answerKey", labels, first=1))
    return chosen(row, prompt.format(row.text(question)), [str(text).strip() for text in given["text"]], right)


def arc(row: Row) -> Example:
    return lettered(row, "question", "Question: {}\nAnswer:")


def openbookqa(row: Row) -> Example:
    return lettered(row, "question_stem", "{}")


def mmlu(row: Row) -> Example:
    """Hendrycks et al.'s form: the choices stand in the prompt, and a letter is chosen."""
    choices, letters = row.texts("choices"), "ABCD"
    if len(choices) != len(letters):
        raise TaskError(f"{row.place}: column 'choices' must have {len(letters)} texts, not {len(choices)}")
    right, subject = letters.index(row.one_of("answer", letters)), row.text("subject")
    offered = "\n".join(f"{letter}. {choice}" for letter, choice in zip(letters, choices))
    about = subject.replace("_", " ")
    prompt = f"A multiple choice question about {about}.\n\n{row.text('question')}\n{offered}\nAnswer:"
    return chosen(row, prompt, letters, right, part=subject)
