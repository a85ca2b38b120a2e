"""comparison.json as tables: markdown for the repository, rich for a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from experiments.compare import sections
from experiments.store.tables import SWITCHED_OFF, markdown_table, size

LEGEND = (
    "The score is the mean over seeds and test examples, with its 95 % interval for new seeds and new examples (or new "
    "groups of them, where the task draws several examples from one template or entity) and the standard deviation of "
    "the seeds' means. "
    "Letters: methods that share one are not told apart, by a test over seeds × examples or groups, "
    "Holm-corrected over all pairs of the task. The pairs say what that means: better, equivalent (within the margin "
    "that was stated beforehand, by two one-sided tests, Holm-corrected), or undecided, with the difference that such "
    "a study would have found in four of five cases. An interval is of one mean or one pair, not corrected over the "
    "pairs. No letters are printed while the best fine-tuned method is below a baseline; ↓ names the baselines that a "
    "method is below. "
    "Forgotten: nats a token of general text, after the training minus before, with its 95 % interval for new seeds "
    "and texts; KL a token to the base on text that it wrote. Drift, of an encoder: 1 − cosine of its features, which "
    "is no forgetting. A letter behind a figure of cost, forgetting or drift: methods that share it are not told apart "
    "in that, a the least. "
    "Times are medians over the seeds. "
    "* : the learning rate is at the edge of its grid. "
) + SWITCHED_OFF

ACROSS = (
    "Each run's score with 0 at the untouched model and 1 at the best method's mean of its task. The interquartile "
    "mean is over all runs of all tasks; the probability of improvement is that a run of the one method is better than "
    "a run of the other on one of these tasks. The intervals are by a bootstrap of seeds within each task: of other "
    "tasks they say nothing."
)


def markdown(comparison: dict[str, Any]) -> str:
    """The text of table.md."""
    parts = [f"# {comparison['title']}", comparison["how"], *sections.plan_part(comparison), LEGEND]
    for name, task in comparison["tasks"].items():
        parts.append(f"## {name}")
        if task["methods"]:
            parts += [markdown_table(*cells(task)), sample(task)]
        else:
            parts.append("No run has been tested.")
        if lines := notes(task):
            parts.append("\n".join(f"- {line}" for line in lines))
        if task["pairs"]:
            parts += [f"### {name}: pairs", markdown_table(*pair_cells(task))]
        parts += sections.task_parts(name, task)
    if across := comparison.get("across"):
        parts += ["## All tasks together", ACROSS, *(markdown_table(*each) for each in across_cells(across))]
    return "\n\n".join(parts) + "\n"


def sample(task: dict[str, Any]) -> str:
    """What the numbers of a task are a sample of."""
    groups = f" in {task['n_groups']} groups, which are what is drawn anew" if task.get("n_groups") else ""
    margin = "no margin was stated" if task.get("margin") is None else f"margin of equivalence {task['margin']:g}"
    return f"{task['n_test']} test examples{groups}; {margin}."


def rich_table(name: str, task: dict[str, Any]) -> Table:
    """A task's table for a terminal."""
    headers, lines = cells(task)
    forgot = any(item["forgot"] and item["forgot"]["measure"] != "drift" for item in task["methods"])
    table = Table(title=name, caption=SWITCHED_OFF if forgot else None, caption_justify="left")
    for position, header in enumerate(headers):
        table.add_column(header, justify="left" if position == 0 else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table


def cells(task: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headers and lines, the best method first; a column that no method has anything for is left out."""
    others = dict.fromkeys(name for item in task["methods"] for name in item["other_tasks"])
    lines = [columns(item, str(task["metric"]).replace("_", " "), list(others)) for item in task["methods"]]
    there = [name for name in lines[0] if any(line[name] != "–" for line in lines)]
    return there, [[line[name] for name in there] for line in lines]


def columns(item: dict[str, Any], metric: str, others: list[str]) -> dict[str, str]:
    """A method's cells by header."""
    trained = item["trainable"] > 0
    perplexity = (item["perplexity_after"], item["perplexity_before"])
    forgot, cost = item["forgot"], item.get("cost", {})
    step, peak = (item[name] if trained else None for name in ("step_s", "training_peak_bytes"))
    return {
        "method": f"{item['method']} (baseline)" if item.get("baseline") else item["method"],
        metric: f"{item['mean']:z.3f}",
        "95 %": f"{item['low']:z.3f} to {item['high']:z.3f}",
        "seed sd": number(item["seed_sd"]),
        "letters": item["group"] or "–",
        "below": " ".join(f"↓ {name}" for name in item.get("below", [])) or "–",
        "of full": "–" if item["share_of_full"] is None else f"{item['share_of_full']:.1%}",
        "trainable": f"{item['trainable']:,}",
        "bytes per task": size(item["delta_bytes"]) if trained else "–",
        "training peak": lettered(size(peak), cost.get("training_peak_bytes")) if peak else "–",
        "step": lettered(f"{step:.2f} s", cost.get("step_s")) if step else "–",
        "perplexity after / before": "–" if None in perplexity else f"{perplexity[0] / perplexity[1]:z.3f}",
        "forgotten": lettered(interval(forgot), forgot) if forgot and forgot["measure"] != "drift" else "–",
        "drift": lettered(interval(forgot), forgot) if forgot and forgot["measure"] == "drift" else "–",
        "KL": number(item["kl_per_token"]),
        **{
            f"{name}, before → after": f"{both['before']:z.2f} → {both['after']:z.2f}" if both else "–"
            for name, both in ((name, item["other_tasks"].get(name)) for name in others)
        },
        "lr": "–" if item["lr"] is None else f"{item['lr']:g}{' *' if item['lr_at_edge'] else ''}",
        "seeds": str(item["n_seeds"]),
    }


def interval(item: dict[str, Any]) -> str:
    return f"{item['mean']:z.3f} [{item['low']:z.3f}, {item['high']:z.3f}]"


def lettered(cell: str, tested: dict[str, Any] | None) -> str:
    """The cell with the letter of its test, where there is one."""
    return f"{cell} {tested['group']}" if tested and tested["group"] else cell


def pair_cells(task: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    headers = ["pair", "difference", "95 %", "p", "p (Holm)", "verdict", "could have been found", "seed sd", "seeds"]
    lines = [
        [
            f"{pair['a']} − {pair['b']}",
            f"{pair['difference']:z.3f}",
            f"{pair['low']:z.3f} to {pair['high']:z.3f}",
            f"{pair['p']:.4f}",
            "–" if pair["p_holm"] is None else f"{pair['p_holm']:.4f}",
            verdict(pair),
            number(pair["smallest"]) if pair["verdict"] == "undecided" else "",
            number(pair["seed_sd"]),
            str(pair["n_seeds"] or "–"),
        ]
        for pair in task["pairs"]
    ]
    return headers, lines


def verdict(pair: dict[str, Any]) -> str:
    """The pair's verdict in words."""
    if pair["p_holm"] is None:
        return "undecided: one seed"
    return f"{pair['better']} better" if pair["better"] else pair["verdict"]


def across_cells(across: dict[str, Any]) -> list[tuple[list[str], list[list[str]]]]:
    """Two tables of all tasks together: methods, and pairs of them."""
    methods = [
        [item["method"], f"{item['iqm']:z.3f}", f"{item['low']:z.3f} to {item['high']:z.3f}", str(item["n_runs"])]
        for item in across["methods"]
    ]
    pairs = [
        [f"{pair['a']} over {pair['b']}", f"{pair['probability']:.2f}", f"{pair['low']:.2f} to {pair['high']:.2f}"]
        for pair in across["improvement"]
    ]
    return [
        (["method", "interquartile mean", "95 %", "runs"], methods),
        (["pair", "probability of improvement", "95 %"], pairs),
    ]


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:z.3f}"


def notes(task: dict[str, Any]) -> list[str]:
    """What the table alone does not say, a line each."""
    lines = [f"missing: {line}" for line in task["missing"]]
    if pending := task["pending"]:
        lines.append(f"under way, still to be tested: {', '.join(pending)}")
    if withheld := task.get("letters_withheld"):
        lines.append(withheld)
    if reason := task["share_of_full_reason"]:
        lines.append(f"no share of full: {reason}")
    lines += [f"{item['method']}: {line}" for item in task["methods"] for line in item["notes"]]
    return lines + task["notes"]
