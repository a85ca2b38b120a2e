"""One method trained on several tasks, one after the other, and what it still knows of each.

    python -m experiments.sequence method=lora model=smollm2 'tasks=[ha_json,sql,style]' optim.steps=100

Each stage is an ordinary run that goes on from the file the stage before it left, so the same delta, or with
method=full the same model, is trained throughout. R[i][j] is the score on task j after stage i, over the first
forgetting.n_examples of its test part; b[j] is the untrained model's. After T stages (Lopez-Paz and Ranzato 2017):

    backward transfer = Σ_{j<T} (R[T][j] − R[j][j]) / (T − 1)
    forward transfer  = Σ_{j>1} (R[j−1][j] − b[j]) / (T − 1)

and the forgetting of a task (Chaudhry et al. 2018) = max_{j ≤ i < T} R[i][j] − R[T][j], from the stage that trained it.

The same command goes on where it was stopped and, when it is done, prints its table at once.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from rich.console import Console
from rich.table import Table

from experiments.config.identity import key
from experiments.config.schema import FILES, Trains
from experiments.store.result import Complete, Failed
from experiments.store.schema import flat
from experiments.store.tables import ending
from experiments.support.files import write_json
from experiments.support.output import lasting_output
from experiments.sweep.arm import Arm
from experiments.sweep.pool import carry_out

FORMAT = 1


def sequence(tasks: Sequence[str], overrides: Sequence[str]) -> dict[str, Any]:
    """Train on the tasks in turn and return the content of sequence.json, which lies beside the stages' directories.

    tasks: each the name of a task, with overrides of its fields after it. Raises RuntimeError for a stage that fails.
    """
    if len(tasks) < 2 or len(set(tasks)) < len(tasks):
        raise ValueError(f"tasks={list(tasks)}: give two tasks or more, each once")
    plain = [Arm(stage_overrides(tasks, i, overrides)) for i in range(len(tasks))]
    first = plain[0].config
    if first.method.trains is Trains.nothing:
        raise ValueError(f"method={first.method.name} trains nothing: there is no sequence to follow")
    content = hashlib.sha256(json.dumps([key(arm.config) for arm in plain]).encode()).hexdigest()[:12]
    name = f"sequence-{first.model.name}-{first.method.name}-s{first.seed}-{content}"
    folder = Path(first.out).absolute() / name
    rows: list[Complete] = []
    more = [f"out={quoted(str(folder))}"]
    for i, task in enumerate(tasks):
        arm = Arm((*stage_overrides(tasks, i, overrides), *more))
        (row,) = carry_out([arm], 1)
        if isinstance(row, Failed):
            raise RuntimeError(f"stage {i + 1} of {len(tasks)}, {task}: {row.failure}; run the same command again")
        if set(row.forgetting.tasks if row.forgetting else ()) != set(tasks):
            raise ValueError(
                f"model={row.model}: a sequence needs a model that writes text; an encoder has a head a task"
            )
        rows.append(row)
        more = [f"out={quoted(str(folder))}", f"start_from={quoted(str(arm.directory / FILES[first.method.trains]))}"]
    result = summary(tasks, rows)
    write_json(folder / "sequence.json", result)
    return result


def stage_overrides(tasks: Sequence[str], i: int, overrides: Sequence[str]) -> tuple[str, ...]:
    """The overrides of the run that trains on task i and is scored on all."""
    name, *own = shlex.split(tasks[i])
    scored = ",".join(quoted(task) for task in tasks)
    return (*overrides, f"task={name}", *own, f"forgetting.tasks=[{scored}]", "forgetting.enabled=true")


def quoted(text: str) -> str:
    """The text as a value in Hydra's grammar, whatever stands in it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def summary(tasks: Sequence[str], rows: Sequence[Complete]) -> dict[str, Any]:
    """The matrix and what follows from it."""
    first = rows[0]
    stages = [row.forgetting.tasks if row.forgetting else {} for row in rows]
    base = [stages[0][task].before for task in tasks]
    matrix = [[scores[task].after for task in tasks] for scores in stages]
    numbers = [flat(row) for row in rows]
    return {
        "format": FORMAT,
        **{name: getattr(first, name) for name in ("method", "model", "seed", "lr", "steps", "batch_size")},
        "tasks": list(tasks),
        "metrics": [stages[0][task].metric for task in tasks],
        "n_examples": [stages[0][task].n_examples for task in tasks],
        "base": base,
        "matrix": matrix,
        **transfer(matrix, base),
        "text_perplexity": [numbers[0]["perplexity_before"], *(each["perplexity_after"] for each in numbers)],
        "kl_per_token": [0.0, *(each["kl_per_token"] for each in numbers)],
        "runs": [row.file.parent.name for row in rows if row.file],
    }


def transfer(matrix: Sequence[Sequence[float]], base: Sequence[float]) -> dict[str, Any]:
    """The mean over tasks at the end, backward and forward transfer, and the forgetting of each task but the last."""
    n = len(matrix)
    last = matrix[-1]
    return {
        "average": sum(last) / n,
        "backward_transfer": sum(last[j] - matrix[j][j] for j in range(n - 1)) / (n - 1),
        "forward_transfer": sum(matrix[j - 1][j] - base[j] for j in range(1, n)) / (n - 1),
        "forgetting": [max(matrix[i][j] for i in range(j, n - 1)) - last[j] for j in range(n - 1)],
    }


def table(result: dict[str, Any]) -> Table:
    """Scores by stage, and the forgetting of each task under them."""
    lines = Table(title=f"{result['method']} on {result['model']}, seed {result['seed']}: the score on each task")
    lines.add_column("after training on")
    for task, metric in zip(result["tasks"], result["metrics"]):
        lines.add_column(f"{shlex.split(task)[0]}\n{metric}", justify="right")
    lines.add_column("general text\nperplexity", justify="right")
    stages = ["nothing", *(shlex.split(task)[0] for task in result["tasks"])]
    for stage, scores, perplexity in zip(stages, [result["base"], *result["matrix"]], result["text_perplexity"]):
        lines.add_row(stage, *(f"{score:.3f}" for score in scores), f"{perplexity:.2f}")
    lines.add_section()
    lines.add_row("forgetting", *(f"{lost:+.3f}" for lost in result["forgetting"]), "–", "")
    return lines


def main(arguments: Sequence[str]) -> None:
    if "--help" in arguments or "-h" in arguments:
        print(__doc__)
        return
    parser = OverridesParser.create()
    chosen = [argument for argument in arguments if argument.startswith("tasks=")]
    if len(chosen) != 1:
        raise SystemExit("give the tasks once: python -m experiments.sequence method=lora 'tasks=[ha_json,sql]' …")
    tasks = parser.parse_override(chosen[0]).value()
    if not isinstance(tasks, list):
        raise SystemExit(f"{chosen[0]}: tasks is a list of names, as in 'tasks=[ha_json,sql]'")
    result = sequence([str(task) for task in tasks], [a for a in arguments if a not in chosen])
    console = Console()
    console.print(table(result))
    console.print(
        f"backward transfer {result['backward_transfer']:+.3f}, forward transfer {result['forward_transfer']:+.3f}, "
        f"mean at the end {result['average']:.3f}"
    )


if __name__ == "__main__":
    lasting_output()
    raise SystemExit(ending(lambda: main(sys.argv[1:]) or 0))
