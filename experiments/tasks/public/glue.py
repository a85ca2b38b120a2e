"""The nine tasks of GLUE: their columns and classes, and what each is scored by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from experiments.tasks.agreement import classification, f1, matthews, pearson
from experiments.tasks.base import Example, TaskError
from experiments.tasks.metrics import Metric
from experiments.tasks.public.choices import named
from experiments.tasks.public.rows import Row

ACCURACY = Metric("accuracy", classification)
ENTAILED = ("entailment", "not_entailment")


@dataclass(frozen=True)
class Glue:
    columns: tuple[str, ...]  # the first text's, and the second's where there is one
    names: tuple[str, ...]  # the classes, by their numbers; () where a number is asked for
    metric: Metric = ACCURACY
    group: bool = False  # whether examples share their first text

    def __call__(self, row: Row) -> Example:
        text, *pair = (row.text(column) for column in self.columns)
        answer = row.one_of("label", self.names) if self.names else rating(row)
        group = named(text) if self.group else ""
        return Example(completion=answer, text=text, text_pair=pair[0] if pair else None, group=group, place=row.place)


def rating(row: Row) -> str:
    try:
        value = float(row.get("label"))
    except (TypeError, ValueError):
        raise TaskError(f"{row.place}: column 'label' must be a number, not {row.get('label')!r}") from None
    if not 0 <= value <= 5:
        raise TaskError(
            f"{row.place}: column 'label' must be from 0 to 5, not {value:g}; take a split that has its labels"
        )
    return f"{value:g}" if "." in f"{value:g}" else f"{value:.1f}"


GLUE = {
    "cola": Glue(("sentence",), ("unacceptable", "acceptable"), Metric("mcc", matthews)),
    "sst2": Glue(("sentence",), ("negative", "positive")),
    "mrpc": Glue(
        ("sentence1", "sentence2"),
        ("not_equivalent", "equivalent"),
        Metric("f1", partial(f1, positive="equivalent")),
    ),
    "stsb": Glue(("sentence1", "sentence2"), (), Metric("pearson", pearson)),
    "qqp": Glue(
        ("question1", "question2"),
        ("not_duplicate", "duplicate"),
        Metric("f1", partial(f1, positive="duplicate")),
    ),
    "mnli": Glue(("premise", "hypothesis"), ("entailment", "neutral", "contradiction"), group=True),
    "qnli": Glue(("question", "sentence"), ENTAILED),
    "rte": Glue(("sentence1", "sentence2"), ENTAILED),
    "wnli": Glue(("sentence1", "sentence2"), ("not_entailment", "entailment")),
}
