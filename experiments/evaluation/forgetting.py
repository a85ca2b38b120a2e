"""Forgetting: what training on a task does to what the model could do before.

Probes, each before and after: the perplexity of held-out general text, exp of the mean −log p of its tokens; KL(base ‖
tuned) a token of text that the base itself wrote; the score on other tasks. An encoder writes no text: of it the drift
of its features is taken. The base's figures are a function of the base and the probes alone: they are kept in the
cache under a hash of both, so that a sweep takes them once.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import deltatune as dt
from experiments.config.compose import task_config
from experiments.config.schema import Check, Config
from experiments.data.gate import Entry
from experiments.data.reader import Reader
from experiments.evaluation import probes
from experiments.evaluation.answers import answers
from experiments.evaluation.probes import Written
from experiments.objectives import objective_class
from experiments.support.cache import cached
from experiments.tasks import general, jsonl, load_task
from experiments.tasks.base import Example, TaskData, TaskError
from experiments.training.loop import NotFinite

FORMAT = 1  # the version of what the cache keeps: raise it when what is measured changes
TEXT_TOKENS = 128  # the most of a text; what is longer is cut


@dataclass
class Base:
    """What the base is worth: figures that stand in the cache."""

    texts: list[list[int]]  # ids
    nll: list[float] = field(default_factory=list)  # each text's, summed over its tokens
    written: Path | None = None  # the texts that it wrote, and its logits on them
    features: Path | None = None  # an encoder's, which has these alone
    tasks: dict[str, tuple[TaskData, list[float]]] = field(default_factory=dict)  # and the score of each example


def before(config: Config, reader: Reader, learned: Sequence[Example] = ()) -> Base:
    """The base's figures, out of the cache or taken now. The global random state stays as it was.

    reader: of the model as loaded, before a delta and its reserved ids. learned: all that will be trained on; raises
    TaskError where a probe is among it, unless data.check is not to stop the run.
    """
    wanted = config.forgetting
    given = general_texts(config)
    places = {_asked(example): example.place for example in learned} if config.data.check is Check.error else {}
    unlearned(f"forgetting.text={wanted.text or 'general'}", [Example(text=text) for text in given], places)
    ids = [reader.encoder.tokenizer(text)["input_ids"][:TEXT_TOKENS] for text in given]
    ids = [text for text in ids if len(text) > 1]  # a single token has nothing to be foreseen from
    if not ids:
        raise TaskError(f"forgetting.text={wanted.text}: no text of two tokens or more; give longer ones")
    base, kept = Base(ids[: wanted.n_text]), Kept(reader)
    with torch.random.fork_rng([reader.device] if reader.device.type == "cuda" else []):
        if not reader.writes:
            base.features = kept("features", base.texts, lambda file: keep_features(file, reader, base.texts))
            return base
        base.nll = kept.numbers("text", base.texts, lambda: probes.text_nll(reader, base.texts))
        starts = ids[: wanted.n_kl]
        base.written = kept("written", starts, lambda file: keep_written(file, reader, starts))
        for entry in wanted.tasks:
            task = task_config(entry)
            data = load_task(task, seed=task.seed)
            unlearned(f"forgetting.tasks={entry}", data.test[: wanted.n_examples], places)
            base.tasks[entry] = data, scored_by_base(config, kept, reader, data)
    return base


def unlearned(name: str, probed: Sequence[Example], places: dict[tuple[Any, ...], str]) -> None:
    """Raise TaskError where an example that is probed, with its answer, is one that is learned from, at its place."""
    for i, example in enumerate(probed):
        if (place := places.get(_asked(example))) is not None:
            where = f" ({place})" if place else ""
            raise TaskError(
                f"{name}: probe {i} is also trained on{where}, so that what was forgotten would not show; take it out "
                "of one of them, or probe with others"
            )


def _asked(example: Example) -> tuple[Any, ...]:
    entry = Entry("", 0, example, "")
    return entry.question, entry.answer


def scored_by_base(config: Config, kept: Kept, reader: Reader, data: TaskData) -> list[float]:
    """The base's score of each of another task's examples."""
    how = [config.optim.max_length, config.eval.batch_size, config.eval.max_new_tokens]
    what = [data.sha256, data.metric, config.forgetting.n_examples, *how]
    return kept.numbers(f"task-{data.name}", what, lambda: scored(config, reader, data))


def after(config: Config, base: Base, reader: Reader, known: dict[str, list[float]]) -> dict[str, Any]:
    """The result's part on forgetting. reader: with a delta's reserved ids.

    known: scores of every test example that the run has taken already, by the hash of the task's data.
    """
    if base.features is not None:
        return encoder_drift(base, reader)
    n_tokens = [len(text) - 1 for text in base.texts]
    nll = probes.text_nll(reader, base.texts)
    kl, n_written = [], 0
    with safe_open(str(base.written), framework="pt") as file:
        texts = [Written(**text) for text in json.loads(file.metadata()["texts"])]
        for i, logits in enumerate(probes.logits_of(reader, texts)):
            kl.append(probes.kl_sum(file.get_tensor(str(i)).to(reader.device), logits))
            n_written += len(texts[i].own)
    if not all(map(math.isfinite, [*nll, *kl])):
        raise NotFinite("after the training the model gives NaN on the probes of forgetting; lower optim.lr")
    tasks = {}
    for name, (data, earlier) in base.tasks.items():
        scores = known.get(data.sha256) or scored(config, reader, data)
        means = [sum(each[: len(earlier)]) / len(earlier) for each in (earlier, scores)]
        tasks[name] = {"before": means[0], "after": means[1], "metric": data.metric, "n_examples": len(earlier)}
    return {
        "text_perplexity": {
            "before": perplexity(sum(base.nll), sum(n_tokens)),
            "after": perplexity(sum(nll), sum(n_tokens)),
        },
        "kl_per_token": sum(kl) / n_written,
        "feature_drift": None,
        "tasks": tasks,
        "text": config.forgetting.text or "general",
        "n_texts": len(base.texts),
        "n_text_tokens": sum(n_tokens),
        "n_written": len(texts),
        "n_written_tokens": n_written,
        # a text each, for paired intervals: mean −log p a token, mean KL a token
        "each": {
            "nll_before": [total / n for total, n in zip(base.nll, n_tokens)],
            "nll_after": [total / n for total, n in zip(nll, n_tokens)],
            "kl": [total / len(text.own) for total, text in zip(kl, texts)],
        },
        "reason": None,
    }


def encoder_drift(base: Base, reader: Reader) -> dict[str, Any]:
    assert base.features is not None
    drift = probes.drift(load_file(base.features)["features"], probes.features(reader, base.texts))
    if not all(map(math.isfinite, drift)):
        raise NotFinite("after the training the encoder's features are NaN; lower optim.lr")
    return {
        "text_perplexity": None,
        "kl_per_token": None,
        "feature_drift": sum(drift) / len(drift),
        "tasks": {},
        "n_texts": len(base.texts),
        "each": {"drift": drift},
        "reason": "an encoder writes no text and has one head a task: the drift of its features is measured alone",
    }


def perplexity(nll: float, n_tokens: int) -> float:
    """exp of the mean; of a model so far gone that this is no number, the largest there is."""
    return math.exp(min(nll / n_tokens, 709.0))


def scored(config: Config, reader: Reader, data: TaskData) -> list[float]:
    """The score of each of the first test examples of another task."""
    examples = data.test[: config.forgetting.n_examples]
    hopeless = data.hopeless if config.eval.stop_hopeless else None
    objective = objective_class(data.kind, task_head=False)(reader.encoder, data.labels, hopeless=hopeless)
    predictions = answers(objective, reader, objective.rows(examples), config.eval, config.log_every)
    return data.score(examples, predictions).each


# ---------------------------------------------------------------- texts


def general_texts(config: Config) -> list[str]:
    """As many texts as the probes want: of the run's own file, or of the test part of the task `general`."""
    wanted = config.forgetting
    n = max(wanted.n_text, wanted.n_kl)
    if wanted.text:
        return texts_of(Path(wanted.text))[:n]
    return [example.text for example in general.split(0, 0, n)["test"]]


def texts_of(path: Path) -> list[str]:
    """The texts of a file with a record {"text"} a line. Raises TaskError naming file and line."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise TaskError(f"forgetting.text={path}: cannot be read: {error}") from None
    found = []
    for place, record in jsonl.parsed(path, raw):
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            raise TaskError(f"{place}: a text to probe with is a record with the field 'text', a text")
        found.append(record["text"])
    return found


# ---------------------------------------------------------------- the cache


class Kept:
    """Files in the cache that are a function of the base, where it computes, and what it is asked."""

    def __init__(self, reader: Reader) -> None:
        model, device = reader.model, reader.device
        # A task head is new and random; the base is what is under it.
        under: Any = model if reader.writes else model.base_model
        self.base = [
            FORMAT,
            dt.fingerprint(under),
            str(next(model.parameters()).dtype),
            torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            torch.get_num_threads(),  # sums are split by it, so the last bits follow it
            torch.__version__,
            transformers.__version__,
        ]

    def __call__(self, kind: str, what: Any, make: Callable[[Path], None]) -> Path:
        """The file that make(file) writes, made once."""
        key = hashlib.sha256(json.dumps([self.base, what]).encode()).hexdigest()[:16]
        return cached(f"forgetting-{kind}-{key}", lambda folder: make(folder / "file")) / "file"

    def numbers(self, kind: str, what: Any, make: Callable[[], list[float]]) -> list[float]:
        return json.loads(self(kind, what, lambda file: _write(file, make())).read_text())


def _write(file: Path, numbers: list[float]) -> None:
    file.write_text(json.dumps(numbers, allow_nan=False))


def keep_written(file: Path, reader: Reader, starts: Sequence[list[int]]) -> None:
    """Texts that the base writes, and its logits on them: T × V numbers a text in its own dtype, so that they are exact
    and those of an unchanged model are the same to the bit. They let KL be taken where the base is gone, as after
    full fine-tuning, and one text at a time."""
    texts = probes.continuations(reader, starts)
    logits = {str(i): t.cpu().contiguous() for i, t in enumerate(probes.logits_of(reader, texts))}
    save_file(logits, file, {"texts": json.dumps([asdict(text) for text in texts])})


def keep_features(file: Path, reader: Reader, texts: Sequence[list[int]]) -> None:
    save_file({"features": probes.features(reader, texts)}, file)
