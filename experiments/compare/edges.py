"""Methods whose best rate stands at an edge of what was tried: nothing is claimed that their better rate might undo."""

from __future__ import annotations

from typing import Any


def without_claims(outcome: dict[str, Any]) -> dict[str, Any]:
    """The task's outcome without letters where a method's rate is at an edge, and a note that says so.

    Its score is a lower bound. A letter ranks it among the others all the same, so no letters are left; a pair with it
    has `at_edge` true, as who is better than it, or as good, may not be with a rate that was tried on both sides.
    """
    edges = [item["method"] for item in outcome["methods"] if item["lr_at_edge"]]
    for pair in outcome["pairs"]:
        pair["at_edge"] = pair["a"] in edges or pair["b"] in edges
    if edges:
        for item in outcome["methods"]:
            item["group"] = ""
        reason = (
            f"no letters: the rate of {', '.join(edges)} is at an edge of what was tried, so a better one may lie "
            "beyond (raise cap=)"
        )
        outcome["letters_withheld"] = "; ".join(filter(None, (outcome["letters_withheld"], reason)))
    return outcome
