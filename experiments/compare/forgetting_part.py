"""The parts of table.md on forgetting at equal quality and on what became of the weights, as markdown."""

from __future__ import annotations

from typing import Any

from experiments.store.tables import SWITCHED_OFF, markdown_table

Cells = tuple[list[str], list[list[str]]]
FRONTIER = (
    "What a method forgot at a level of quality, between the points of its Pareto front around it: the mean over "
    "seeds and texts of {measure}, with its 95 % interval; methods that share a letter are not told apart, a the "
    "least. "
    "Quality is that on the {split} examples, of all rates and of steps along the training."
)
WEIGHTS = (
    "What became of the weight matrices, means over matrices and seeds. norm: of ΔW over that of W. Intruders: of the "
    "{top} leading singular vectors of W + ΔW, those whose cosine to every one of W's is below {cosine:g}."
)


def forgetting_parts(name: str, task: dict[str, Any]) -> list[str]:
    """The task's frontier and its spectra, where they were measured."""
    return [*frontier_parts(name, task.get("frontier")), *weights_parts(name, task.get("spectra"))]


def frontier_parts(name: str, frontier: dict[str, Any] | None) -> list[str]:
    if not frontier:
        return []
    parts = [f"### {name}: forgetting at equal quality", FRONTIER.format(**frontier), SWITCHED_OFF]
    if levels := frontier["levels"]:
        parts.append(markdown_table(*level_cells(frontier)))
        if levels[-1]["pairs"]:
            parts += [f"At {words(frontier)} {levels[-1]['quality']:.3f}:", markdown_table(*pair_cells(levels[-1]))]
    if frontier["notes"]:
        parts.append("\n".join(f"- {note}" for note in frontier["notes"]))
    return parts


def words(frontier: dict[str, Any]) -> str:
    return str(frontier["quality"]).replace("_", " ")


def level_cells(frontier: dict[str, Any]) -> Cells:
    """A line a method, a column a level."""
    levels = frontier["levels"]
    methods = dict.fromkeys(
        name for level in levels for name in (*(each["method"] for each in level["methods"]), *level["not_reached"])
    )
    by_level = [{each["method"]: each for each in level["methods"]} for level in levels]
    headers = ["method", *(f"at {words(frontier)} {level['quality']:.3f}" for level in levels)]
    return headers, [[method, *(forgot(there.get(method)) for there in by_level)] for method in methods]


def forgot(each: dict[str, Any] | None) -> str:
    """A cell: the mean, its interval and its letter."""
    if each is None:
        return "not reached"
    return f"{each['mean']:z.3f} [{each['low']:z.3f}, {each['high']:z.3f}] {each['group']}".rstrip()


def pair_cells(level: dict[str, Any]) -> Cells:
    lines = [
        [
            f"{pair['a']} − {pair['b']}",
            f"{pair['difference']:z.3f}",
            f"{pair['low']:z.3f} to {pair['high']:z.3f}",
            "–" if pair["p_holm"] is None else f"{pair['p_holm']:.4f}",
            f"{pair['better']} forgets less" if pair["better"] else pair["verdict"],
            f"{pair['smallest']:.3f}" if pair["verdict"] == "undecided" and pair["smallest"] is not None else "",
        ]
        for pair in level["pairs"]
    ]
    return ["pair", "difference", "95 %", "p (Holm)", "verdict", "could have been found"], lines


def weights_parts(name: str, spectra: dict[str, dict[str, Any]] | None) -> list[str]:
    if not spectra:
        return []
    first = next(iter(spectra.values()))
    reasons = [f"- {method}: {each['reason']}" for method, each in spectra.items() if each["reason"]]
    table = markdown_table(*weight_cells(spectra)) if any(each["all"] for each in spectra.values()) else ""
    return [f"### {name}: weights", WEIGHTS.format(**first), *filter(None, [table, "\n".join(reasons)])]


def weight_cells(spectra: dict[str, dict[str, Any]]) -> Cells:
    """A line for each method and kind of site, all kinds first."""
    headers = ["method", "site", "matrices", "norm", "rank", "stable rank", "effective rank", "intruders"]
    lines = [
        [
            method,
            site,
            f"{each['n_weights']:g}",
            f"{each['norm']:.3g}",
            *(f"{each[measure]:.1f}" for measure in ("rank", "stable_rank", "effective_rank")),
            f"{each['intruders']:.2f}",
        ]
        for method, own in spectra.items()
        for site, each in {"all": own["all"], **own["sites"]}.items()
        if each is not None
    ]
    return headers, lines
