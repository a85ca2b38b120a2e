"""Public tasks by the hub's id, or from local files of the same columns (task.path=, or task.train= and task.test=).

Validation is what the dataset has, else a part of train. What shares a prompt or a group with validation or test is
left out of training, and so are prompts that have two answers; how many is said in the result, under data.sources.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from experiments.config.tasks import PublicConfig
from experiments.tasks.base import TRAITS, Example, Scores, TaskData, TaskError, content_sha256, mean
from experiments.tasks.metrics import METRICS, Metric, accuracy
from experiments.tasks.public.choices import adapted
from experiments.tasks.public.rows import NoFile, Row, Source, rows_of
from experiments.tasks.public.spider import MAIN, Databases
from experiments.tasks.public.table import PUBLIC, Public, Reader
from experiments.tasks.split import Parts, sized, taken
from experiments.tasks.training_draw import apart, prompt

PARTS = ("train", "val", "test")


def load(config: PublicConfig, seed: int = 0) -> TaskData:
    """config: see PublicConfig. Raises TaskError naming file, row and column."""
    public = PUBLIC[config.name]
    if public.members:
        return together(config, public, seed)
    databases = Databases(folder_of(config)) if config.name == "spider" else None
    read, sources = parts_of(public, config, databases, seed)
    parts, sources = separated(read, config, seed, sources)
    if databases is not None:
        usable = {part: [e for e in parts[part] if databases.usable(e)] for part in ("val", "test")}
        if stopped := sum(len(parts[part]) - len(rows) for part, rows in usable.items()):
            sources = sources | {"gold queries that do not run within the limits": str(stopped)}
        parts |= usable
    metric = metric_of(public, config, databases)
    return assembled(config.name, public.kind, parts, sources, metric)


def parts_of(
    public: Public, config: PublicConfig, databases: Databases | None, seed: int
) -> tuple[Parts, dict[str, str]]:
    """The examples of each split that there is, as the dataset has them, and their sources."""
    read: Parts = {}
    versions: dict[str, str] = {}
    for part in PARTS:
        own, sources = getattr(config, part), sources_of(public, config, part)
        reader = databases.read if databases else public.read
        if part != "train" and public.read_held:
            reader = public.read_held
        assert reader is not None
        examples: list[Example] = []
        for i, source in enumerate(sources):
            try:
                pinned = replace(source, revision=config.revision or source.revision)
                where, version, rows = rows_for(part, pinned, own or config.path, public.most, seed)
            except NoFile:
                if part != "val":
                    raise
                sources = ()  # it is split off from train then
                break
            versions[where] = version
            named = public.parts[i] if part == "test" and len(sources) == len(public.parts) else None
            examples += [example_of(row, reader, public, named) for row in rows]
        if sources:
            read[part] = public.gathered(examples) if public.gathered and part != "train" else examples
    return read, versions


def rows_for(part: str, source: Source, path: str | None, most: int | None, seed: int) -> tuple[str, str, list[Row]]:
    """The source's rows; where the test is a validation split, a local file may be called test as well."""
    try:
        return rows_of(source, path, most, seed)
    except NoFile as missing:
        if part != "test" or source.split == "test":
            raise
        try:
            return rows_of(replace(source, split="test"), path, most, seed)
        except NoFile:
            raise missing from None


def sources_of(public: Public, config: PublicConfig, part: str) -> tuple[Source, ...]:
    """Where a part's rows are; () for one that is split off from train, as validation is from files of one's own."""
    sources: tuple[Source, ...] = getattr(public.splits, part)
    if getattr(config, part) is not None:
        return (sources or public.splits.train)[:1]
    alone = part == "val" and config.path is None and (config.train or config.test)
    return () if alone else sources


def example_of(row: Row, read: Reader, public: Public, part: str | None) -> Example:
    example = (adapted(row) if public.kind == "choose" else None) or read(row)
    return example if part is None else replace(example, part=part)


def folder_of(config: PublicConfig) -> str:
    if config.databases is None and config.path is None:
        raise TaskError("task=spider executes queries: task.databases= the directory of Spider's databases")
    return config.databases or f"{config.path}/database"


def separated(read: Parts, config: PublicConfig, seed: int, sources: dict[str, str]) -> tuple[Parts, dict[str, str]]:
    """The parts in their sizes, none of train's prompts or groups held, none with two answers."""
    sizes = replace(config, n_train=None, train=config.train or config.name)
    parts = sized(read, sizes, seed, TRAITS[PUBLIC[config.name].kind].labelled)
    one_answer = TRAITS[PUBLIC[config.name].kind].one_answer
    n_val, n_test = len(parts["val"]), len(parts["test"])
    if one_answer:
        parts["test"] = settled(parts["test"])
        parts["val"] = settled(apart(parts["val"], parts["test"]))
    held = [*parts["val"], *parts["test"]]
    train = consistent(free := apart(parts["train"], held), one_answer)
    left_out = {
        "train that is held": len(parts["train"]) - len(free),
        "train that is there twice, or has two answers": len(free) - len(train),
        "validation that is in test, or has two answers": n_val - len(parts["val"]),
        "test that has two answers": n_test - len(parts["test"]),
    }
    if any(left_out.values()):
        sources = sources | {"left out": "; ".join(f"{n} of {why}" for why, n in left_out.items() if n)}
    if not train:
        raise TaskError(f"task={config.name}: every training row shares a prompt or a group with validation or test")
    if config.n_train is not None:
        train, _ = taken("train", train, config.n_train, seed)
    return parts | {"train": train}, sources


def consistent(examples: Sequence[Example], one_answer: bool) -> list[Example]:
    """Each prompt once for an answer; where one answer is right, none of a prompt that has two."""
    first = {(*prompt(example), example.completion): example for example in reversed(examples)}
    once = list(reversed(first.values()))
    return settled(once) if one_answer else once


def settled(examples: Sequence[Example]) -> list[Example]:
    """Those whose prompt has one answer."""
    answers: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for example in examples:
        answers[prompt(example)].add(example.completion)
    return [example for example in examples if len(answers[prompt(example)]) == 1]


def metric_of(public: Public, config: PublicConfig, databases: Databases | None = None) -> Metric:
    """The task's own metric, or the one that task.metric names."""
    known = METRICS[public.kind]
    own = public.metric or next(iter(known.values()))
    if config.metric is None or config.metric == own.main:
        return Metric(MAIN, databases) if databases is not None else own
    if config.metric not in known:
        raise TaskError(
            f"task.metric={config.metric}: for task={config.name} there are: {', '.join({own.main, *known})}"
        )
    return known[config.metric]


def assembled(name: str, kind: Any, parts: Parts, sources: dict[str, str], metric: Metric) -> TaskData:
    train, val, test = (parts[part] for part in PARTS)
    labels = tuple(sorted({e.completion for e in train})) if TRAITS[kind].labelled else ()
    digest, ceiling = content_sha256(train, val, test), None if kind in ("text", "respond") else 1.0
    scored_by = metric.main, metric.scorer, metric.hopeless
    return TaskData(name, kind, train, val, test, labels, digest, sources, *scored_by, ceiling=ceiling)


def together(config: PublicConfig, public: Public, seed: int) -> TaskData:
    """Several sets as one task, a part each: of validation and test equal shares, of training what there is of each."""
    if config.train or config.val or config.test:
        raise TaskError(f"task={config.name} has {len(public.members)} sets: give their directory, task.path=")
    parts: Parts = {part: [] for part in PARTS}
    sources: dict[str, str] = {}
    n_val, n_test = (shared(n, len(public.members)) for n in (config.n_val, config.n_test))
    for member, val, test in zip(public.members, n_val, n_test):
        data = load(replace(config, name=member, n_train=None, n_val=val, n_test=test), seed)
        for part in PARTS:
            parts[part] += [
                replace(e, part=member, group=e.group and f"{member} {e.group}") for e in getattr(data, part)
            ]
        sources |= {f"{member}: {name}": version for name, version in data.sources.items()}
    parts["train"] = apart(parts["train"], [*parts["val"], *parts["test"]])
    if config.n_train is not None:
        parts["train"], _ = taken("train", parts["train"], config.n_train, seed)
    return assembled(config.name, "choose", parts, sources, Metric("accuracy", macro))


def shared(total: int | None, n: int) -> list[int | None]:
    """The total in n shares; what is left over goes one each to the first ones."""
    return [None] * n if total is None else [total // n + (i < total % n) for i in range(n)]


def macro(examples: Sequence[Example], predictions: Sequence[str]) -> Scores:
    """Accuracy over all examples, and macro_accuracy, the mean of that of each part."""
    scores = accuracy(examples, predictions)
    by_part: dict[str, list[float]] = defaultdict(list)
    for example, each in zip(examples, scores.each):
        by_part[example.part].append(each)
    return Scores(scores.each, scores.means | {"macro_accuracy": mean(map(mean, by_part.values()))})
