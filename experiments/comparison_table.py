"""comparison.json as tables: markdown for the repository, rich for a terminal."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from experiments.tables import markdown_table, size

HEADERS = (
    "method",
    "{metric}",
    "95 %",
    "seed sd",
    "ties",
    "of full",
    "trainable",
    "bytes per task",
    "training peak",
    "step",
    "perplexity after / before",
    "lr",
    "seeds",
)
LEGEND = (
    "The score is the mean over seeds, with its 95 % interval for other test examples and the standard deviation of "
    "the seeds' means. "
    "ties: methods that share a letter are not told apart (sign-flip test over test examples, Holm-corrected over all "
    "pairs of the task). These tests hold for the models as trained; of new seeds they say nothing, see the spread. "
    "perplexity: of general text, after the training over before. * : the learning rate is at the edge of its grid."
)


def markdown(comparison: dict[str, Any]) -> str:
    """table.md."""
    parts = [f"# {comparison['title']}", comparison["how"], LEGEND]
    for name, task in comparison["tasks"].items():
        parts.append(f"## {name}")
        if task["methods"]:
            parts += [markdown_table(*cells(task)), f"{task['n_test']} test examples."]
        else:
            parts.append("No run has been tested.")
        if said := notes(task):
            parts.append("\n".join(f"- {line}" for line in said))
        if task["pairs"]:
            parts += [f"### {name}: pairs", markdown_table(*pair_cells(task))]
        if task["search"]:
            parts += [f"### {name}: learning rates", markdown_table(*search_cells(task))]
    return "\n\n".join(parts) + "\n"


def rich_table(name: str, task: dict[str, Any]) -> Table:
    """One task's table for a terminal."""
    headers, lines = cells(task)
    table = Table(title=name)
    for position, header in enumerate(headers):
        table.add_column(header, justify="left" if position == 0 else "right", overflow="fold")
    for line in lines:
        table.add_row(*line)
    return table


def cells(task: dict[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Headers and lines, the best method first."""
    headers = [header.replace("{metric}", str(task["metric"]).replace("_", " ")) for header in HEADERS]
    lines = []
    for item in task["methods"]:
        trained = item["trainable"] > 0
        lr = "–" if item["lr"] is None else f"{item['lr']:g}{' *' if item['lr_at_edge'] else ''}"
        forgot = (item["perplexity_after"], item["perplexity_before"])
        lines.append(
            [
                item["method"],
                f"{item['mean']:z.3f}",
                f"{item['low']:z.3f} to {item['high']:z.3f}",
                number(item["seed_sd"]),
                item["group"],
                "–" if item["share_of_full"] is None else f"{item['share_of_full']:.1%}",
                f"{item['trainable']:,}",
                size(item["delta_bytes"]) if trained else "–",
                size(item["training_peak_bytes"]) if trained else "–",
                f"{item['step_s']:.2f} s" if trained else "–",
                "–" if None in forgot else f"{forgot[0] / forgot[1]:z.3f}",
                lr,
                str(item["n_seeds"]),
            ]
        )
    return headers, lines


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
    """What the table alone does not say."""
    said = [f"missing: {line}" for line in task["missing"]]
    if reason := task["share_of_full_reason"]:
        said.append(f"no share of full: {reason}")
    said += [f"{item['method']}: {line}" for item in task["methods"] for line in item["notes"]]
    return said + task["notes"]
