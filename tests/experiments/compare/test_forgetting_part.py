"""Forgetting at equal quality, and the weights, as table.md has them; what it says of deltas."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.made_up import COMPLETE
from benchmarks.made_up_frontier import frontier, spectra
from experiments.compare.forgetting_part import forgetting_parts
from experiments.compare.table import LEGEND, columns, rich_table
from experiments.compare.weights import changes
from experiments.store.result import Spectra
from experiments.store.tables import SWITCHED_OFF

METHODS = {"lora": (0.8, 0.4), "prefix": (0.4, 0.1), "full": (0.85, 1.2)}


def test_a_line_a_method_and_a_column_a_level():
    text = "\n".join(forgetting_parts("ha_json", {"frontier": frontier(METHODS)}))
    assert "### ha_json: forgetting at equal quality" in text and SWITCHED_OFF in text
    assert "| method | at exact match 0.425 | at exact match 0.613 | at exact match 0.800 |" in text
    assert "| prefix | not reached | not reached | not reached |" in text
    assert "| lora | 0.100 [0.080, 0.120] a |" in text and "| full |" in text
    assert "lora forgets less" in text and "- a made-up note on fronts" in text


def test_the_weights_of_each_kind_of_site_and_why_a_method_has_none():
    text = "\n".join(forgetting_parts("ha_json", {"spectra": spectra(("lora", "prefix"))}))
    assert "| lora | all | 30 | 0.01 | 16.0 | 2.5 | 6.2 | 0.50 |" in text
    assert "| lora | mlp.down_proj | 30 | 0.012 |" in text and "| prefix |" not in text
    assert "- prefix: 30 sites are left out: made up" in text


def test_nothing_measured_is_nothing_said():
    assert forgetting_parts("ha_json", {}) == forgetting_parts("ha_json", {"frontier": None, "spectra": None}) == []


def test_spectra_are_means_over_the_seeds():
    assert COMPLETE.spectra is not None and COMPLETE.spectra.all is not None
    more = replace(COMPLETE.spectra, all=replace(COMPLETE.spectra.all, norm=0.75, intruders=3))
    none = Spectra(top=10, cosine=0.5, sites={}, all=None, reason="no matrix was changed")
    found = changes(
        {
            "lora": [COMPLETE, replace(COMPLETE, spectra=more)],
            "bitfit": [replace(COMPLETE, spectra=none)],
            "full": [replace(COMPLETE, spectra=None)],
            "none": [replace(COMPLETE, parameters=replace(COMPLETE.parameters, trainable=0))],
        }
    )
    assert found is not None and set(found) == {"lora", "bitfit"}
    assert found["lora"]["all"]["norm"] == 0.5 and found["lora"]["all"]["intruders"] == 2
    assert found["lora"]["sites"]["made_up"]["norm"] == 0.25 and found["lora"]["n_seeds"] == 2
    assert (found["bitfit"]["all"], found["bitfit"]["reason"]) == (None, "no matrix was changed")
    assert changes({"full": [replace(COMPLETE, spectra=None)]}) is None


def test_a_drift_stands_in_no_column_of_what_was_forgotten():
    forgot = {"measure": "drift", "mean": 0.25, "low": 0.2, "high": 0.3, "group": "a"}
    item = {
        "method": "lora",
        "mean": 0.5,
        "low": 0.4,
        "high": 0.6,
        "seed_sd": 0.1,
        "group": "a",
        "share_of_full": None,
        "trainable": 8,
        "delta_bytes": 8,
        "training_peak_bytes": 8.0,
        "step_s": 1.0,
        "kl_per_token": None,
        "perplexity_after": None,
        "perplexity_before": None,
        "other_tasks": {},
        "lr": 1e-3,
        "lr_at_edge": False,
        "n_seeds": 2,
        "forgot": forgot,
    }
    drifted = columns(item, "accuracy", [])
    assert drifted["forgotten"] == "–" and drifted["drift"] == "0.250 [0.200, 0.300] a"
    nats = columns({**item, "forgot": {**forgot, "measure": "nats"}}, "accuracy", [])
    assert nats["forgotten"] == "0.250 [0.200, 0.300] a" and nats["drift"] == "–"
    task = {"metric": "accuracy", "methods": [item]}
    assert rich_table("made up", task).caption is None
    task = {"metric": "accuracy", "methods": [{**item, "forgot": {**forgot, "measure": "nats"}}]}
    assert rich_table("made up", task).caption == SWITCHED_OFF and SWITCHED_OFF in LEGEND
