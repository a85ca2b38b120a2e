"""Forgetting: what training on a task does to what the model could do before.

Probes, each before and after: the perplexity of each corpus of held-out text, exp of the mean −log p of its tokens;
KL(base ‖ tuned) a token of text that the base itself wrote after the beginnings of that corpus; the score on other
tasks. An encoder writes no text: of it the drift of its features is taken, which is no forgetting. The base's figures
are a function of the base and the probes alone: they are kept in the cache under a hash of both, so that a sweep takes
them once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from experiments.config.family import Family
from experiments.config.schema import Check, Config
from experiments.data.entry import Entry
from experiments.data.reader import Reader
from experiments.data.replay import Source
from experiments.data.sources import check_apart
from experiments.evaluation import corpora, probes
from experiments.evaluation.answers import answers
from experiments.evaluation.kept import Kept, keep_features, keep_written
from experiments.evaluation.probes import Written
from experiments.objectives import objective_class
from experiments.tasks.base import Example, TaskData, TaskError, content_sha256
from experiments.training.loop import NotFinite

TEXT_TOKENS = 128  # the most of a text; what is longer is cut


@dataclass
class Corpus:
    """A corpus by its entry in forgetting.texts, and the base's figures on it, which stand in the cache."""

    name: str
    sha256: str
    texts: list[list[int]]  # ids
    nll: list[float] = field(default_factory=list)  # each text's, summed over its tokens
    written: Path | None = None  # the texts that it wrote, and its logits on them
    features: Path | None = None  # an encoder's, which has these alone

    @property
    def n_tokens(self) -> list[int]:
        return [len(text) - 1 for text in self.texts]


@dataclass
class Base:
    """What the base is worth."""

    corpora: list[Corpus]
    tasks: dict[str, tuple[TaskData, list[float]]] = field(default_factory=dict)  # and the score of each example


def before(config: Config, reader: Reader, learned: Sequence[Example] = (), replayed: Sequence[Source] = ()) -> Base:
    """The base's figures, out of the cache or taken now. The global random state stays as it was.

    reader: of the model as loaded, before a delta and its reserved ids. learned: the task's own that will be trained
    on; raises TaskError where a probe is among it, unless data.check is not to stop the run; and always where a probe
    is of the source of what is replayed, or among it.
    """
    wanted = config.forgetting
    named = [*(("forgetting.texts", e) for e in wanted.texts), *(("forgetting.tasks", e) for e in wanted.tasks)]
    check_apart(named, [("data.replay_from", source.entry) for source in replayed])
    apart = Apart(learned if config.data.check is Check.error else (), replayed)
    base, kept = Base([]), Kept(reader)
    with torch.random.fork_rng([reader.device] if reader.device.type == "cuda" else []):
        for entry in dict.fromkeys(wanted.texts):
            examples = corpora.texts(entry, max(wanted.n_text, wanted.n_kl))
            apart.check(f"forgetting.texts={entry}", examples)
            base.corpora.append(corpus_of_base(config, kept, reader, entry, examples))
        for entry in dict.fromkeys(wanted.tasks) if reader.writes else ():
            data = corpora.other_task(entry)
            apart.check(f"forgetting.tasks={entry}", data.test[: wanted.n_examples])
            base.tasks[entry] = data, scored_by_base(config, kept, reader, data)
    return base


class Apart:
    """Nothing that is probed may be learned: of the task no example with its answer, of what is replayed no prompt."""

    def __init__(self, learned: Sequence[Example], replayed: Sequence[Source]) -> None:
        self.learned = {_asked(example): example.place for example in learned}
        self.replayed = {
            _asked(example)[0]: (source.entry, example.place) for source in replayed for example in source.examples
        }

    def check(self, name: str, probed: Sequence[Example]) -> None:
        """Raise TaskError where a probe is trained on, naming the place."""
        for i, example in enumerate(probed):
            question, answer = _asked(example)
            if question in self.replayed:
                entry, place = self.replayed[question]
                raise TaskError(
                    f"{name}: probe {i} is also replayed, by data.replay_from={entry}{f' ({place})' if place else ''}: "
                    "replay and probe are never of one source; probe with another, or replay another"
                )
            if (place := self.learned.get((question, answer))) is not None:
                raise TaskError(
                    f"{name}: probe {i} is also trained on{f' ({place})' if place else ''}, so that what was forgotten "
                    "would not show; take it out of one of them, or probe with others"
                )


def _asked(example: Example) -> tuple[Any, Any]:
    entry = Entry("", 0, example, "")
    return entry.question, entry.answer


def corpus_of_base(config: Config, kept: Kept, reader: Reader, name: str, examples: Sequence[Example]) -> Corpus:
    """A corpus with the base's figures. Raises TaskError where none of its texts has two tokens."""
    wanted = config.forgetting
    read = reader.encoder.text_ids if goes_on(reader) else lambda text: reader.encoder.tokenizer(text)["input_ids"]
    ids = [read(example.text)[:TEXT_TOKENS] for example in examples]
    ids = [text for text in ids if len(text) > 1]  # a single token has nothing to be foreseen from
    if not ids:
        raise TaskError(f"forgetting.texts={name}: no text of two tokens or more; give longer ones")
    corpus = Corpus(name, content_sha256(examples), ids[: wanted.n_text])
    if goes_on(reader):
        corpus.nll = kept.numbers("text", corpus.texts, lambda: probes.text_nll(reader, corpus.texts))
        starts = ids[: wanted.n_kl]
        corpus.written = kept("written", starts, lambda file: keep_written(file, reader, starts))
    else:
        corpus.features = kept("features", corpus.texts, lambda file: keep_features(file, reader, corpus.texts))
    return corpus


def scored_by_base(config: Config, kept: Kept, reader: Reader, data: TaskData) -> list[float]:
    """The base's score of each of another task's examples."""
    how = [config.optim.max_length, config.eval.batch_size, config.eval.max_new_tokens]
    what = [config.model.today, data.sha256, data.metric, config.forgetting.n_examples, *how]
    return kept.numbers(f"task-{data.name}", what, lambda: scored(config, reader, data))


def scored(config: Config, reader: Reader, data: TaskData) -> list[float]:
    """The score of each of the first test examples of another task."""
    examples = data.test[: config.forgetting.n_examples]
    hopeless = data.hopeless if config.eval.stop_hopeless else None
    objective = objective_class(data.kind, reader.family)(reader.encoder, data.labels, hopeless=hopeless)
    predictions = answers(objective, reader, objective.rows(examples), config.eval, config.log_every)
    return data.score(examples, predictions).each


# ---------------------------------------------------------------- after the training


def after(config: Config, base: Base, reader: Reader, known: dict[str, list[float]]) -> dict[str, Any]:
    """The result's part on forgetting. reader: with a delta's reserved ids.

    known: scores of every test example that the run has taken already, by the hash of the task's data.
    """
    measured = {corpus.name: after_corpus(corpus, reader) for corpus in base.corpora}
    tasks = {}
    for name, (data, earlier) in base.tasks.items():
        later = (known.get(data.sha256) or scored(config, reader, data))[: len(earlier)]
        tasks[name] = {
            "before": sum(earlier) / len(earlier),
            "after": sum(later) / len(later),
            "metric": data.metric,
            "n_examples": len(earlier),
            "chance": corpora.chance(data.test[: len(earlier)]),
            "each_before": earlier,
            "each_after": later,
        }
    return {**together(base, measured), "tasks": tasks, "corpora": measured, "reason": reason(reader)}


def after_corpus(corpus: Corpus, reader: Reader) -> dict[str, Any]:
    """A corpus's figures, with a number a text for paired intervals. Raises NotFinite where the model gives NaN."""
    sizes = {"sha256": corpus.sha256, "n_texts": len(corpus.texts), "n_text_tokens": sum(corpus.n_tokens)}
    if corpus.features is not None:
        drift = finite(probes.drift(load_file(corpus.features)["features"], probes.features(reader, corpus.texts)))
        return {**sizes, "feature_drift": sum(drift) / len(drift), "each": {"drift": drift}}
    nll = finite(probes.text_nll(reader, corpus.texts))
    kl = finite(kl_per_token(corpus, reader))
    return {
        **sizes,
        "text_perplexity": perplexities(corpus.nll, nll, corpus.n_tokens),
        "kl_per_token": sum(kl) / len(kl),
        "n_written": len(kl),
        "n_written_tokens": len(kl) * probes.WRITTEN_TOKENS,
        "each": {
            "nll_before": [total / n for total, n in zip(corpus.nll, corpus.n_tokens)],
            "nll_after": [total / n for total, n in zip(nll, corpus.n_tokens)],
            "kl": kl,
        },
    }


def kl_of_texts(base: Base, reader: Reader) -> list[float]:
    """Of each text that the base wrote, those of all corpora in their order, the KL a token: a few seconds' work, so
    that it can be taken along a training."""
    return finite([kl for corpus in base.corpora for kl in kl_per_token(corpus, reader)])


def kl_per_token(corpus: Corpus, reader: Reader) -> list[float]:
    """Of each text that the base wrote, the mean KL(base ‖ tuned) over its tokens, in nats."""
    with safe_open(str(corpus.written), framework="pt") as file:
        texts = [Written(**text) for text in json.loads(file.metadata()["texts"])]
        tuned = enumerate(probes.logits_of(reader, texts))
        return [
            probes.kl_sum(file.get_tensor(str(i)).to(reader.device), logits) / len(texts[i].own) for i, logits in tuned
        ]


def together(base: Base, measured: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The same over all corpora: texts pooled for a perplexity, corpora alike in the means of KL and drift."""

    def mean(name: str) -> float | None:
        values = [each.get(name) for each in measured.values()]
        known = [value for value in values if value is not None]
        return sum(known) / len(known) if known else None

    def total(name: str) -> int | None:
        return (
            sum(each[name] for each in measured.values()) if all(name in each for each in measured.values()) else None
        )

    counts = [n for corpus in base.corpora for n in corpus.n_tokens]
    earlier = [nll for corpus in base.corpora for nll in corpus.nll]
    later = [nll for each in measured.values() for nll in each["each"].get("nll_after", ())]
    later = [nll * n for nll, n in zip(later, counts)]
    return {
        "text_perplexity": perplexities(earlier, later, counts) if later else None,
        "kl_per_token": mean("kl_per_token"),
        "feature_drift": mean("feature_drift"),
        **{name: total(name) for name in ("n_texts", "n_text_tokens", "n_written", "n_written_tokens")},
    }


def goes_on(reader: Reader) -> bool:
    """Whether the model goes on with any text, as a language model does."""
    return reader.family is Family.decoder


def reason(reader: Reader) -> str | None:
    if goes_on(reader):
        return None
    if reader.writes:
        return "an encoder-decoder answers a text and does not go on with it: the drift of its encoder's features"
    return "an encoder writes no text and has one head a task: the drift of its features is measured, no forgetting"


def perplexities(earlier: Sequence[float], later: Sequence[float], n_tokens: Sequence[int]) -> dict[str, float]:
    """The base's and the tuned model's, from each text's sum of −log p."""
    return {"before": perplexity(sum(earlier), sum(n_tokens)), "after": perplexity(sum(later), sum(n_tokens))}


def perplexity(nll: float, n_tokens: int) -> float:
    """exp of the mean; of a model so far gone that this is no number, the largest there is."""
    return math.exp(min(nll / n_tokens, 709.0))


def finite(values: list[float]) -> list[float]:
    """The values. Raises NotFinite where one is no number."""
    if not all(map(math.isfinite, values)):
        raise NotFinite("the trained model gives NaN on the probes of forgetting; lower optim.lr")
    return values
