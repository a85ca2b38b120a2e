"""The sweep over what keeps a model from forgetting, and the table of its effects."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from benchmarks.made_up import made_up, made_up_result
from experiments.config.compose import CONF, register
from experiments.mitigations import Condition, conditions, effect, main, reference
from experiments.store.result import Complete
from tests.support.runs import config, overrides, own_cache_and_torch_settings, run  # noqa: F401 - a fixture


def planted(method: str, lr: float, replay: float, seed: int, shift: float, noise: float = 0.05) -> Complete:
    """A run that is `shift` nats a token from the base, beside what each text has in every condition, and noise."""
    draw, own = random.Random(0), random.Random(f"{method}{lr}{replay}{seed}")
    kl = [1 + draw.random() + shift + own.gauss(0, noise) for _ in range(40)]
    corpus = {"sha256": "", "n_texts": 40, "n_text_tokens": 400, "each": {"kl": kl}}
    forgetting = made_up()["forgetting"] | {"corpora": {"prose": corpus}}
    config = {"data": {"replay": replay}}
    about = {"model": "tiny", "task": "jsonl", "seed": seed, "lr": lr, "steps": 10}
    return made_up_result(method, **about, config=config, forgetting=forgetting)


def test_a_planted_effect_is_found_and_none_is_not():
    rows = [planted("lora", 1e-3, replay, s, shift) for replay, shift in ((0.0, 0.5), (0.1, 0.2)) for s in range(3)]
    rows += [planted("ia3", 1e-3, replay, seed, 0.3) for replay in (0.0, 0.1) for seed in range(3)]
    runs = conditions(rows)
    found = effect(Condition("lora", 1e-3, 0.1), Condition("lora", 1e-3, 0.0), runs)
    assert found is not None
    assert found.low < -0.3 < found.high < -0.25
    assert found.difference == pytest.approx(-0.3, abs=0.05) and found.p < 0.01
    reverse = effect(Condition("lora", 1e-3, 0.0), Condition("lora", 1e-3, 0.1), runs)
    assert reverse is not None and reverse.difference == pytest.approx(-found.difference)
    assert reverse.low == pytest.approx(-found.high)
    none = effect(Condition("ia3", 1e-3, 0.1), Condition("ia3", 1e-3, 0.0), runs)
    assert none is not None and none.low < 0 < none.high


def test_each_condition_is_held_against_the_one_that_differs_in_one_measure():
    given = [("lora", 1e-3, 0.0), ("lora", 1e-3, 0.1), ("lora", 2e-4, 0.0), ("full", 2e-4, 0.0), ("full", 4e-5, 0.1)]
    runs = conditions(planted(*one, 0, 0.1) for one in given)
    found = {condition: reference(condition, runs) for condition in runs}
    assert found == {
        Condition("lora", 1e-3, 0.1): Condition("lora", 1e-3, 0.0),
        Condition("lora", 2e-4, 0.0): Condition("lora", 1e-3, 0.0),
        Condition("lora", 1e-3, 0.0): Condition("full", 2e-4, 0.0),
        Condition("full", 2e-4, 0.0): None,
        Condition("full", 4e-5, 0.1): None,  # its own without replay was not run
    }


def test_runs_of_two_sweeps_are_refused():
    with pytest.raises(ValueError, match=r"a second run of lora, lr 0\.001, replay 0, seed 0"):
        conditions([planted("lora", 1e-3, 0.0, 0, 0.1)] * 2)
    other = planted("lora", 1e-3, 0.1, 0, 0.1)
    with pytest.raises(ValueError, match=r"several sweeps: tiny, jsonl, 10 steps.*tiny, sql, 10 steps"):
        conditions([planted("lora", 1e-3, 0.0, 0, 0.1), replace(other, task="sql")])


def test_perplexity_alone_makes_no_effect():
    """What was replayed is like the probe: its perplexity falls below the base's, and the KL says what was lost."""
    learned = planted("lora", 1e-3, 0.1, 0, 0.5)
    forgot = learned.forgetting
    assert forgot is not None and forgot.text_perplexity is not None
    forgot = replace(forgot, text_perplexity=replace(forgot.text_perplexity, after=forgot.text_perplexity.before / 2))
    runs = conditions([planted("lora", 1e-3, 0.0, 0, 0.5), replace(learned, forgetting=forgot)])
    found = effect(Condition("lora", 1e-3, 0.1), Condition("lora", 1e-3, 0.0), runs)
    assert found is not None and found.difference == pytest.approx(0, abs=0.05)


def test_a_run_that_may_have_been_probed_with_what_it_replayed_is_refused():
    older = planted("lora", 1e-3, 0.1, 0, 0.1)
    assert older.forgetting is not None
    older = replace(older, forgetting=replace(older.forgetting, corpora=None))
    with pytest.raises(ValueError, match="an older run, which could be probed with what it replayed"):
        conditions([older])


def test_the_sweep_varies_method_rate_replay_and_seed():
    register()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        params = compose("config", ["+sweep=forgetting"], return_hydra_config=True).hydra.sweeper.params
    params = dict(params)
    assert params.pop("seed") == "0,1,2"
    choices = [[f"{name}={value}" for value in str(values).split(",")] for name, values in params.items()]
    made = [config("model=tiny", "+sweep=forgetting", *chosen) for chosen in product(*choices)]
    found = {(one.method.name, one.optim.lr, one.data.replay) for one in made}
    rates = {one.method.name: one.method.lr for one in made}
    expected = {(m, rates[m] * by, replay) for m in ("lora", "full") for by in (1, 0.2) for replay in (0.0, 0.1, 0.3)}
    assert found == expected


def test_real_runs_make_the_table(tmp_path, capsys):
    replayed = Path(tmp_path / "general.jsonl")
    replayed.write_text("".join(f'{{"text": "a plain sentence, number {i}, of no use"}}\n' for i in range(20)))
    for share in (0, 0.5):
        result = run(config(*overrides(tmp_path, f"data.replay={share}", f"data.replay_from=[{replayed}]")))
        assert (result["data"]["replay"] is None) == (share == 0)
    assert result["data"]["replay"]["sources"][str(replayed)]["n_drawn"] == 8  # half of four steps of four
    capsys.readouterr()
    main([str(tmp_path / "runs")])
    said = capsys.readouterr().out
    assert "Forgetting: tiny trained on jsonl, 4 steps" in said
    assert re.search(r"\+?-?0\.\d{3} \[.*\]  lora, lr [\d.]+, replay 0 ", said)
    assert "A delta can be switched off, and then nothing is forgotten" in said
    with pytest.raises(SystemExit, match="2"):
        main([])
    assert "FOLDER" in capsys.readouterr().err
