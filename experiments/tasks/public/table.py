"""The public tasks: of each where its rows are, how they are read, what it is scored by, and under what protocol."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from experiments.tasks.base import Example, Kind
from experiments.tasks.metrics import METRICS, Metric
from experiments.tasks.public import choices, glue, texts
from experiments.tasks.public.rows import CONVERTED, Row, Source
from experiments.tasks.public.spider import MAIN

Reader = Callable[[Row], Example]
HARNESS = (
    "lm-evaluation-harness: validation split, few-shot as stated by a paper; its acc_norm divides by bytes, as here."
)


@dataclass(frozen=True)
class Splits:
    """Where the rows of each part are; without those of val or test these are split off from train."""

    train: tuple[Source, ...] = ()
    val: tuple[Source, ...] = ()
    test: tuple[Source, ...] = ()


@dataclass(frozen=True)
class Public:
    """A dataset, or with `members` the tasks that are one task together."""

    columns: str
    licence: str
    protocol: str  # what published numbers are of
    kind: Kind = "choose"
    read: Reader | None = None
    splits: Splits = Splits()
    read_held: Reader | None = None  # where validation and test have other columns than train
    metric: Metric | None = None  # None: the usual one of the kind
    parts: tuple[str, ...] = ()  # a part each of the test's sources
    gathered: Callable[[Sequence[Example]], list[Example]] | None = None  # what is made of validation and test
    most: int | None = None  # rows that are read of a source
    members: tuple[str, ...] = ()


def of_hub(hub: str, subset: str | None, splits: Sequence[str], revision: str | None = None) -> Splits:
    """The sources of train, of validation where there are three splits, and of test."""
    train, *val, test = ((Source(hub, split, subset, revision),) for split in splits)
    return Splits(train, val[0] if val else (), test)


THREE, TWO = ("train", "validation", "test"), ("train", "validation")
COMMONSENSE = ("boolq", "piqa", "siqa", "hellaswag", "winogrande", "arc_easy", "arc_challenge", "openbookqa")
GLUE_LICENCE = "each set its own; GLUE (Wang et al. 2019) lists them"
GLUE_PROTOCOL = "GLUE's validation split is the test here, since its test labels are hidden. "
GLUE_SCORES = {
    "cola": "Matthews correlation.",
    "mrpc": "F1 of `equivalent`, accuracy beside it; LoRA's paper reports accuracy (`task.metric=accuracy`).",
    "stsb": "Pearson, Spearman beside it.",
    "qqp": "F1 of `duplicate`, accuracy beside it; LoRA's paper reports accuracy.",
    "mnli": "Accuracy; matched and mismatched apart, by part.",
}


def glue_task(name: str) -> Public:
    one = glue.GLUE[name]
    held = ("validation_matched", "validation_mismatched") if name == "mnli" else ("validation",)
    return Public(
        columns=", ".join((*one.columns, "label")),
        licence=GLUE_LICENCE,
        protocol=GLUE_PROTOCOL + GLUE_SCORES.get(name, "Accuracy."),
        kind="classify" if one.names else "rate",
        read=one,
        splits=Splits(
            train=(Source("nyu-mll/glue", "train", name),),
            test=tuple(Source("nyu-mll/glue", split, name) for split in held),
        ),
        metric=one.metric,
        parts=("matched", "mismatched") if name == "mnli" else (),
    )


PUBLIC: dict[str, Public] = {
    "gsm8k": Public(
        columns="query, response, type, original_question (MetaMathQA); question, answer (GSM8K)",
        licence="MIT, both",
        protocol="PEFT's method_comparison: trained on MetaMathQA, validated on 50 questions of GSM8K's train, tested "
        "on all of its test. The number after #### or `The answer is` counts. What rephrases a validation question is "
        "left out of training.",
        kind="generate",
        read=texts.metamath,
        read_held=texts.gsm8k,
        splits=Splits(
            train=(Source("meta-math/MetaMathQA", "train"),),
            val=(Source("openai/gsm8k", "train", "main"),),
            test=(Source("openai/gsm8k", "test", "main"),),
        ),
        metric=METRICS["generate"]["number"],
    ),
    "commonsense": Public(
        columns="those of its eight sets, or LLM-Adapters' instruction, output, answer",
        licence="each set its own",
        protocol="LLM-Adapters (Hu et al. 2023): one training on all eight, and the mean of eight accuracies, here "
        "macro_accuracy. There the answer is written, here the likeliest is taken.",
        members=COMMONSENSE,
    ),
    "boolq": Public(
        columns="question, passage, answer",
        licence="CC BY-SA 3.0",
        protocol="Accuracy on the 3,270 of validation, with the passage; LLM-Adapters leaves the passage out.",
        read=choices.boolq,
        splits=of_hub("google/boolq", None, TWO),
    ),
    "piqa": Public(
        columns="goal, sol1, sol2, label",
        licence="AFL 3.0",
        protocol=HARNESS,
        read=choices.piqa,
        splits=of_hub("ybisk/piqa", None, TWO, revision=CONVERTED),
    ),
    "siqa": Public(
        columns="context, question, answerA, answerB, answerC, label",
        licence="not stated on the hub",
        protocol=HARNESS,
        read=choices.siqa,
        splits=of_hub("allenai/social_i_qa", None, TWO, revision=CONVERTED),
    ),
    "hellaswag": Public(
        columns="ctx_a, ctx_b, endings, activity_label, source_id, label",
        licence="MIT",
        protocol=HARNESS,
        read=choices.hellaswag,
        splits=of_hub("Rowan/hellaswag", None, TWO),
    ),
    "winogrande": Public(
        columns="sentence, option1, option2, answer",
        licence="CC BY (data), Apache-2.0 (code)",
        protocol="The validation of winogrande_xl. The harness scores what follows the option alone; here the option "
        "counts too, so numbers differ from its own.",
        read=choices.winogrande,
        splits=of_hub("allenai/winogrande", "winogrande_xl", TWO, revision=CONVERTED),
    ),
    "arc_easy": Public(
        columns="question, choices {text, label}, answerKey",
        licence="CC BY-SA 4.0",
        protocol="The 2,376 of test; acc_norm of the harness, zero-shot or 25-shot.",
        read=choices.arc,
        splits=of_hub("allenai/ai2_arc", "ARC-Easy", THREE),
    ),
    "arc_challenge": Public(
        columns="question, choices {text, label}, answerKey",
        licence="CC BY-SA 4.0",
        protocol="The 1,172 of test; acc_norm of the harness, zero-shot or 25-shot.",
        read=choices.arc,
        splits=of_hub("allenai/ai2_arc", "ARC-Challenge", THREE),
    ),
    "openbookqa": Public(
        columns="question_stem, choices {text, label}, answerKey",
        licence="Apache-2.0, by its repository",
        protocol="The 500 of test, without the book's facts; acc_norm of the harness.",
        read=choices.openbookqa,
        splits=of_hub("allenai/openbookqa", "main", THREE),
    ),
    "mmlu": Public(
        columns="question, subject, choices, answer",
        licence="MIT",
        protocol="Hendrycks et al. 2021: all of test, five demonstrations of the same subject's dev, the mean over "
        "questions. Here the dev split is the training part, and demonstrations are of any subject.",
        read=choices.mmlu,
        splits=of_hub("cais/mmlu", "all", ("dev", "validation", "test")),
    ),
    **{f"glue_{name}": glue_task(name) for name in glue.GLUE},
    "scitldr": Public(
        columns="source, target, paper_id",
        licence="Apache-2.0",
        protocol="Cachola et al. 2020: ROUGE by files2rouge, the best of a paper's references. Here it is the F1 of "
        "ROUGE-L over lower-case words, so runs are to be compared with one another.",
        kind="generate",
        read=texts.scitldr,
        metric=METRICS["generate"]["rouge_l"],
        splits=of_hub("allenai/scitldr", "Abstract", THREE, revision=CONVERTED),
    ),
    "e2e": Public(
        columns="meaning_representation, human_reference",
        licence="CC BY-SA 4.0",
        protocol="LoRA's paper: BLEU, NIST, METEOR, ROUGE-L and CIDEr by e2e-metrics over 630 inputs with all their "
        "references. corpus_bleu is nearest to it; the main metric is the mean of sentences.",
        kind="generate",
        read=texts.e2e,
        metric=METRICS["generate"]["bleu"],
        gathered=texts.with_references,
        splits=of_hub("tuetschek/e2e_nlg", None, THREE, revision=CONVERTED),
    ),
    "spider": Public(
        columns="db_id, question, query; and the databases, task.databases=",
        licence="CC BY-SA 4.0",
        protocol="Execution accuracy on the 1,034 of validation (Yu et al. 2018); the official test suite runs several "
        "databases a query and lets columns change places, here neither.",
        kind="generate",
        metric=Metric(MAIN, METRICS["generate"]["exact_match"].scorer),  # its scorer needs the databases
        splits=of_hub("xlangai/spider", None, TWO),
    ),
    "tulu3": Public(
        columns="messages, source",
        licence="ODC-BY 1.0, parts of it for research alone",
        protocol="Loss alone: nats a token of the assistant's last turn, as the test NLL of Tinker's sweeps. Of its "
        "chats 50,000 are read, by chance.",
        kind="respond",
        read=texts.tulu,
        splits=Splits(train=(Source("allenai/tulu-3-sft-mixture", "train"),)),
        most=50_000,
    ),
}
