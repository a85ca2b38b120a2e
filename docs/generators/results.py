"""The committed results: each study's comparison.json as tables, and the forgetting runs by their settings."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from docs.generators.text import ROOT, inline, page, prose, table
from experiments.compare.table import LEGEND, cells, notes
from experiments.store.tables import SWITCHED_OFF

RESULTS = ROOT / "experiments" / "results"
WARNING = """```{warning}
These studies are no ranking of methods, and they are being redone. An audit showed that they rank the learning rates
of task heads, searches that were too short, and lucky seeds:

- MiniLM's new task head was trained at the delta's own rate, so a method with a higher rate also had a better head.
- Each search tried three rates on one seed, for fewer steps than the runs themselves; several best rates lie at the
  edge of what was tried.
- The tests ask about other test examples alone. What another seed would have given stands in the column of the seeds'
  standard deviation, which can be larger than the difference.
- At 60 steps, SmolLM2's runs measure how a method gets through its warm-up, not what it can learn.
```"""


def page_of_results() -> str:
    """Every committed study, under the warning that holds for all of them."""
    return page(
        "# Results",
        "These are the committed runs of `experiments/results`, as they were measured.",
        WARNING,
        'All runs with their learning curves and answers are in the <a href="report.html">report</a>, which '
        "`make report` builds too.",
        *(part for path in sorted(RESULTS.glob("*/comparison.json")) for part in study(path)),
        *forgetting(sorted((RESULTS / "forgetting").glob("*result.json"))),
        "## How to read the tables",
        prose(LEGEND),
    )


def study(path: Path) -> Iterable[str]:
    """A study's heading, its protocol, and a table with its notes for each task."""
    comparison = json.loads(path.read_text(encoding="utf-8"))
    yield f"## {inline(comparison['title'])}"
    yield prose(comparison["how"])
    yield f"From `{path.relative_to(ROOT)}`, which has the pairs and the search too."
    for name, task in comparison["tasks"].items():
        if comparison["format"] == 1:  # its letters are of a test that is no longer held
            task["methods"] = [item | {"group": "", "forgot": None} for item in task["methods"]]
        headers, lines = cells(task)
        yield f"### {path.parent.name}: {name}"
        yield table(headers, [[inline(cell) for cell in line] for line in lines])
        yield f"{task['n_test']} test examples."
        yield "\n".join(f"- {inline(line)}" for line in notes(task))


def forgetting(paths: list[Path]) -> Iterable[str]:
    """The runs on what a model forgets, a line for each method, learning rate and share of replay."""
    runs: dict[tuple[str, float, float], list[dict[str, Any]]] = {}
    for path in paths:
        run = json.loads(path.read_text(encoding="utf-8"))
        if run["status"] == "complete":
            runs.setdefault((run["method"], run["lr"], run["config"]["data"]["replay"]), []).append(run)
    first = next(iter(runs.values()))[0]
    lines = [
        [method, f"{lr:g}", f"{replay:.0%}", str(len(same)), *means(same)]
        for (method, lr, replay), same in sorted(runs.items())
    ]
    yield "## forgetting: runs with and without replay"
    yield (
        f"{first['model']} on {first['task']}, {first['steps']} steps, with a share of the training taken from general "
        "text. Here replay and probe are of one source, Python's documentation, which a run refuses now: a lower KL, "
        "or a perplexity below the base's, says that this kind of text was learned, and not what was kept of any other."
    )
    yield SWITCHED_OFF
    score = first["metric"].replace("_", " ")
    yield table(["method", "lr", "replay", "seeds", score, "perplexity after / before", "KL, nats a token"], lines)


def means(runs: list[dict[str, Any]]) -> list[str]:
    """The score, the rise of perplexity and the KL, means over the seeds."""
    perplexities = [run["forgetting"]["text_perplexity"] for run in runs]
    return [
        f"{fmean(run['quality'][run['metric']] for run in runs):.3f}",
        f"{fmean(each['after'] / each['before'] for each in perplexities):.2f}",
        f"{fmean(run['forgetting']['kl_per_token'] for run in runs):.2f}",
    ]
