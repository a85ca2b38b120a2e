"""comparison.json as tables: markdown for the repository, rich for a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from experiments.store.tables import markdown_table, size

LEGEND = (
    "The score is the mean over seeds, with its 95 % interval for other test examples and the standard deviation of "
    "the seeds' means. "
    "ties: methods that share a letter are not told apart (sign-flip test over test examples, Holm-corrected over all "
    "pairs of the task): that is undecided, not equal. These tests hold for the models as trained here and take every "
    "test example as drawn for itself; of other seeds, data or settings they say nothing, see the spread. An interval "
    "is of one mean or one pair, not corrected over the pairs. "
    "Forgotten: nats a token of general text, after the training minus before, with its 95 % interval for other texts; "
    "KL a token to the base on text that it wrote; of an encoder the drift of its features, 1 − cosine. alike: methods "
    "that share a letter are not told apart in what they forget, a the least; this too holds for these models, over "
    "texts. Times are medians over the seeds. "
    "* : the learning rate is at the edge of its grid."
)


def markdown(comparison: dict[str, Any]) -> str:
    """The text of table.md."""
    parts = [f"# {comparison['title']}", comparison["how"], LEGEND]
    for name, task in comparison["tasks"].items():
        parts.append(f"## {name}")
        if task["methods"]:
            parts += [markdown_table(*cells(task)), f"{task['n_test']} test examples."]
        else:
            parts.append("No run has been tested.")
        if lines := notes(task):
            parts.append("\n".join(f"- {line}" for line in lines))
        if task["pairs"]:
            parts += [f"### {name}: pairs", markdown_table(*pair_cells(task))]
        if task["search"]:
            parts += [f"### {name}: learning rates", markdown_table(*search_cells(task))]
    return "\n\n".join(parts) + "\n"


def rich_table(name: str, task: dict[str, Any]) -> Table:
    """A task's table for a terminal."""
    headers, lines = cells(task)
    table = Table(title=name)
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
    forgot = item["forgot"]
    return {
        "method": item["method"],
        metric: f"{item['mean']:z.3f}",
        "95 %": f"{item['low']:z.3f} to {item['high']:z.3f}",
        "seed sd": number(item["seed_sd"]),
        "ties": item["group"],
        "of full": "–" if item["share_of_full"] is None else f"{item['share_of_full']:.1%}",
        "trainable": f"{item['trainable']:,}",
        "bytes per task": size(item["delta_bytes"]) if trained else "–",
        "training peak": size(item["training_peak_bytes"]) if trained else "–",
        "step": f"{item['step_s']:.2f} s" if trained else "–",
        "perplexity after / before": "–" if None in perplexity else f"{perplexity[0] / perplexity[1]:z.3f}",
        "forgotten": f"{forgot['mean']:z.3f} [{forgot['low']:z.3f}, {forgot['high']:z.3f}]" if forgot else "–",
        "alike": forgot["group"] if forgot else "–",
        "KL": number(item["kl_per_token"]),
        **{
            f"{name}, before → after": f"{both['before']:z.2f} → {both['after']:z.2f}" if both else "–"
            for name, both in ((name, item["other_tasks"].get(name)) for name in others)
        },
        "lr": "–" if item["lr"] is None else f"{item['lr']:g}{' *' if item['lr_at_edge'] else ''}",
        "seeds": str(item["n_seeds"]),
    }


def pair_cells(task: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    headers = ["pair", "difference", "95 %", "p", "p (Holm)", "told apart", "seed sd", "95 % with new seeds"]
    lines = []
    for pair in task["pairs"]:
        wide = "–" if pair["seeds_low"] is None else f"{pair['seeds_low']:z.3f} to {pair['seeds_high']:z.3f}"
        lines.append(
            [
                f"{pair['a']} − {pair['b']}",
                f"{pair['difference']:z.3f}",
                f"{pair['low']:z.3f} to {pair['high']:z.3f}",
                f"{pair['p']:.4f}",
                f"{pair['p_holm']:.4f}",
                "yes" if pair["distinguishable"] else "",
                number(pair["seed_sd"]),
                wide,
            ]
        )
    return headers, lines


def search_cells(task: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    headers = ["method", "lr", "validation loss", f"validation {str(task['metric']).replace('_', ' ')}", "chosen"]
    lines = []
    for trial in task["search"]:
        numbers = (
            ["failed", ""] if trial["failure"] else [number(trial["validation_loss"]), number(trial["validation"])]
        )
        lines.append([trial["method"], f"{trial['lr']:g}", *numbers, "yes" if trial["chosen"] else ""])
    return headers, lines


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:z.3f}"


def notes(task: dict[str, Any]) -> list[str]:
    """What the table alone does not say, a line each."""
    lines = [f"missing: {line}" for line in task["missing"]]
    if pending := task["pending"]:
        lines.append(f"under way, still to be tested: {', '.join(pending)}")
    if reason := task["share_of_full_reason"]:
        lines.append(f"no share of full: {reason}")
    lines += [f"{item['method']}: {line}" for item in task["methods"] for line in item["notes"]]
    return lines + task["notes"]
