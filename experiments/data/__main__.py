"""Looks the data of a task, or raw files, through before a run is spent on them.

    python -m experiments.data check task=ha_json
    python -m experiments.data check task=jsonl task.train=train.jsonl task.test=test.jsonl model=smollm2
    python -m experiments.data check reviews.train.jsonl reviews.test.jsonl --json

Raw files that differ only in the part that their names say (train, val, test) are one data set. `model=` adds the
lengths in tokens, and finds the examples that optim.max_length cuts. The exit status is 1 where there are errors, 2
where nothing could be looked at.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.config.compose import composed
from experiments.config.schema import Config
from experiments.config.schema import check as check_values
from experiments.config.table import PluginError
from experiments.config.tasks import JsonlConfig
from experiments.data.encode import Encoder
from experiments.data.findings import KINDS, Findings
from experiments.data.gate import PARTS, check
from experiments.data.lengths import QUANTILES
from experiments.data.near_duplicates import SIZE, THRESHOLD
from experiments.data.record_files import Records, name_and_part
from experiments.data.template import ModelFault
from experiments.models.load import Described, described, pinned
from experiments.models.table import ModelError
from experiments.models.wheel import FetchError
from experiments.objectives import objective_class
from experiments.support.output import lasting_output
from experiments.tasks import load_task
from experiments.tasks.base import TaskData, TaskError
from experiments.tasks.forms import Named

CANNOT = (TaskError, ModelError, ModelFault, PluginError, FetchError, HydraException, OmegaConfBaseException)
N_LABELS = 12  # the report's most frequent ones


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.data", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("check", help="look for broken lines, repeats, leaks, odd labels and lengths")
    verb.add_argument("what", nargs="+", help="task=… and other settings of a run, or files of records")
    verb.add_argument("--json", action="store_true", help="every finding, as JSON")
    verb.add_argument("--show", type=int, default=10, metavar="N", help="findings of a kind in the report (10)")
    given = parser.parse_args(arguments)
    try:
        looked_at = checked(given.what)
    except CANNOT as error:
        print(f"experiments.data.__main__: {error}", file=sys.stderr)
        return 2
    if given.json:
        print(json.dumps({"format": 1, "data": [as_json(one) for one in looked_at]}, ensure_ascii=False, indent=1))
    else:
        for findings in looked_at:
            report(findings, given.show, Console())
    return int(any(findings.of("error") for findings in looked_at))


@dataclass(frozen=True)
class Look:
    """The check of any data under the settings of a run. tokens: with its model's tokenizer; no weights are read."""

    config: Config
    tokens: bool

    def __call__(self, data: TaskData) -> Findings:
        near = self.config.data.near_duplicates
        if not self.tokens:
            return check(data, near_duplicates=near)
        tokenizer, known = self.tokenizer
        try:
            chosen = objective_class(data.kind, known.family, self.config.objective)
        except ValueError as error:
            raise TaskError(f"model={self.config.model.name}, task={data.name}: {error}") from None
        encoder = Encoder(tokenizer, self.config.optim.max_length, today=self.config.model.today)
        objective = chosen(encoder, data.labels, self.config.loss_on)
        return check(data, objective, near, self.config.eval.max_new_tokens)

    @cached_property
    def tokenizer(self) -> tuple[Any, Described]:
        """The model's tokenizer, and the model without its weights."""
        from transformers import AutoTokenizer

        known = described(self.config.model)
        try:
            return AutoTokenizer.from_pretrained(known.place, **pinned(self.config.model, known.commit)), known
        except (OSError, ValueError) as error:
            raise ModelError(
                f"model={self.config.model.name} at {known.place!r} has no usable tokenizer: {error}"
            ) from error


def checked(what: Sequence[str]) -> list[Findings]:
    """The findings of the files named, a data set each, or of the task that the settings describe."""
    files = [Path(word) for word in what if "=" not in word or Path(word).is_file()]
    settings = [word for word in what if Path(word) not in files]
    if files and (odd := [word for word in settings if word.split("=")[0].lstrip("+").startswith("task")]):
        raise TaskError(f"{odd[0]} and the file {files[0]}: give a task or files, not both")
    config = composed(settings)
    try:
        check_values(config)
    except ValueError as error:
        raise TaskError(str(error)) from None
    look = Look(config, tokens=any(word.startswith("model=") for word in settings))
    if not files:
        return [check_task(config, look)]
    sets: dict[str, Records] = {}
    for file in files:
        name, part = name_and_part(file)
        sets.setdefault(name, Records(name)).read(file, part)
    return [with_broken_lines(records, look) for records in sets.values()]


def check_task(config: Config, look: Look) -> Findings:
    """Of a task out of files, first whether every line can be used: loading it stops at the first that cannot."""
    if not isinstance(config.task, JsonlConfig):
        return look(load_task(config.task, seed=config.task.seed))
    records = Records(config.task.name, Named(config.task.group, config.task.part))
    for part in PARTS:
        if file := getattr(config.task, part):
            records.read(Path(file), part)
    if records.broken:
        return with_broken_lines(records, look)
    try:
        data = load_task(config.task, seed=config.task.seed)
    except TaskError:
        findings = look(records.data())
        if not findings.of("error"):
            raise
        return findings
    return look(data)


def with_broken_lines(records: Records, look: Look) -> Findings:
    findings = look(records.data())
    findings.found[:0] = records.broken
    findings.looked_for = ("broken_line", "not_utf8", *findings.looked_for)
    return findings


def as_json(findings: Findings) -> dict[str, Any]:
    return {
        "name": findings.name,
        "kind": findings.kind,
        "examples": findings.sizes,
        "counts": findings.counts(),
        "findings": [asdict(finding) for finding in findings.found],
        "lengths": findings.lengths,
        "labels": findings.labels,
    }


def report(findings: Findings, show: int, console: Console) -> None:
    """The findings for people: a summary, the first `show` places of every kind, lengths and labels."""
    sizes = ", ".join(f"{n} {part}" for part, n in findings.sizes.items() if n)
    console.print(f"\n[bold]{escape(findings.name)}[/bold]: {findings.kind}, {sizes}")
    severity = {finding.kind: finding.severity for finding in findings.found}
    for kind, count in sorted(findings.counts().items(), key=lambda item: severity.get(item[0], "~")):
        if not count:
            continue
        colour = "red" if severity[kind] == "error" else "yellow"
        console.print(
            f"[{colour}]{severity[kind]}[/{colour}] [bold]{kind}[/bold] ({count}): {escape(KINDS[kind][1])}",
            soft_wrap=True,
        )
        places = [finding for finding in findings.found if finding.kind == kind]
        for finding in places[:show]:
            console.print(f"  {escape(str(finding))}", soft_wrap=True, highlight=False)
        if len(places) > show:
            console.print(f"  … and {len(places) - show} more; --show {len(places)} or --json lists them")
    clean = [kind for kind, count in findings.counts().items() if not count]
    console.print(f"[green]none[/green]: {', '.join(clean)}" if clean else "", highlight=False)
    if "near_duplicate" in findings.looked_for:
        console.print(f"near: at least {THRESHOLD} of the {SIZE}-grams of characters in common (Jaccard)")
    if findings.lengths:
        console.print(length_table(findings))
    if findings.labels:
        console.print(label_table(findings))


def length_table(findings: Findings) -> Table:
    table = Table("lengths", *("mean", *QUANTILES), title_justify="left")
    for part, measures in findings.lengths.items():
        for measure, values in measures.items():
            table.add_row(f"{part}: {measure}", *(f"{value:.0f}" for value in values.values()))
    return table


def label_table(findings: Findings) -> Table:
    total: Counter[str] = Counter()
    for counts in findings.labels.values():
        total.update(counts)
    table = Table("label", *PARTS)
    for label, _ in total.most_common(N_LABELS):
        table.add_row(escape(label), *(str(findings.labels[part].get(label, 0)) for part in PARTS))
    if len(total) > N_LABELS:
        table.add_row(f"… {len(total) - N_LABELS} more", *[""] * len(PARTS))
    return table


if __name__ == "__main__":
    lasting_output()
    sys.exit(main())
