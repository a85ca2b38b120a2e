"""What chance decides: streams of their own, each recorded, each to be fixed; and the curve along a training."""

from __future__ import annotations

import pytest
from safetensors.torch import load_file

from experiments.config.schema import STREAMS
from experiments.training.curve import log_spaced
from experiments.training.seeds import chosen, stream
from tests.support.runs import (  # noqa: F401
    classes,
    config,
    directory,
    metrics,
    overrides,
    own_cache_and_torch_settings,
    run,
)

LORA = ("+method.rules.0.hparams.dropout=0.2", "optim.steps=6", "forgetting.enabled=false")


def test_streams_follow_the_seed_and_are_none_of_each_other(tmp_path):
    made = config(*overrides(tmp_path, "seed=3", "seeds.order=9"))
    assert chosen(made) == {"init": 3, "order": 9, "dropout": 3, "data": 3}
    assert len({stream(made, name) for name in STREAMS}) == 4
    assert {stream(config(*overrides(tmp_path, "seed=4")), name) for name in STREAMS}.isdisjoint(
        stream(made, name) for name in STREAMS
    )


def test_a_result_says_its_seeds(tmp_path):
    result = run(config(*overrides(tmp_path, "seed=2", "seeds.init=7", "optim.steps=1", "forgetting.enabled=false")))
    assert result["seeds"] == {"init": 7, "order": 2, "dropout": 2, "data": 2}


@pytest.mark.parametrize("name", ["init", "order", "dropout"])
def test_a_stream_changes_what_it_is_named_for_and_a_fixed_one_does_not(tmp_path, name):
    """The first loss knows the order of the data and, of a fresh LoRA, neither its first values nor its dropout."""
    usual, other = (config(*overrides(tmp_path, *LORA, f"seeds.{name}={number}")) for number in (0, 1))
    first, second = (run(each) and metrics(directory(each)) for each in (usual, other))
    assert first != second
    assert (first[0]["loss"] == second[0]["loss"]) == (name != "order")
    if name == "init":
        started = [load_file(directory(each) / "delta.safetensors") for each in (usual, other)]
        assert any((started[0][k] != started[1][k]).any() for k in started[0])


def test_a_seed_given_to_every_stream_is_that_seed(tmp_path):
    seeds = [f"seeds.{name}=5" for name in STREAMS]
    given, usual = config(*overrides(tmp_path, *LORA, *seeds)), config(*overrides(tmp_path, *LORA, "seed=5"))
    assert run(given)["validation"] == run(usual)["validation"]
    assert metrics(directory(given)) == metrics(directory(usual))


# ---------------------------------------------------------------- along the training


def test_points_are_log_spaced_and_end_with_the_training():
    assert log_spaced(0, 100) == ()
    assert log_spaced(1, 100) == (0, 100)
    assert log_spaced(3, 100) == (0, 1, 10, 100)
    assert log_spaced(12, 4) == (0, 1, 2, 3, 4)  # no step twice
    assert log_spaced(2, 1) == (0, 1)


@pytest.mark.parametrize("model", ["tiny", "tiny_encoder"])
def test_the_curve_changes_no_number_of_the_run(tmp_path, model):
    file = classes(tmp_path / "classes.jsonl")
    given = (f"model={model}", "method=lora", *LORA)
    without, with_points = (
        config(*overrides(tmp_path, *given, f"eval.points={n}", "eval.point_examples=3", file=file)) for n in (0, 4)
    )
    plain, curved = run(without), run(with_points)
    assert "curve" not in plain
    assert metrics(directory(without)) == metrics(directory(with_points))
    for name in ("quality", "validation", "scores", "loss"):
        assert plain[name] == curved[name]
    steps = [point["step"] for point in curved["curve"]]
    assert steps == list(log_spaced(4, 6))
    assert curved["curve"][-1]["loss"] == curved["validation"]["loss"]
    assert [point["examples"] for point in curved["curve"]] == [4 * step for step in steps]
    assert curved["curve"][0]["tokens"] == 0 < curved["curve"][-1]["tokens"]
    assert curved["curve"][-1]["flops"] == pytest.approx(curved["flops"]["train"])
    assert all(0 <= point["score"] <= 1 for point in curved["curve"])


def test_points_may_take_the_loss_alone(tmp_path):
    result = run(config(*overrides(tmp_path, *LORA, "eval.points=2", "eval.point_examples=0")))
    assert [point["score"] for point in result["curve"]] == [None, None, None]


def test_a_curve_is_taken_up_where_a_training_was_cut_off(tmp_path, monkeypatch):
    from experiments.training import loop

    made = config(*overrides(tmp_path, *LORA, "eval.points=6"))
    whole = run(config(*overrides(tmp_path, *LORA, "eval.points=6", f"out={tmp_path / 'whole'}")))
    check = loop.check_finite

    def die_at_five(step, *rest):
        if step == 4:
            raise KeyboardInterrupt
        check(step, *rest)

    monkeypatch.setattr(loop, "check_finite", die_at_five)
    with pytest.raises(KeyboardInterrupt):
        run(made)
    monkeypatch.undo()
    monkeypatch.setenv("DELTATUNE_CACHE", str(tmp_path / "cache"))
    taken_up = run(made)
    said = [[(point["step"], point["loss"], point["score"]) for point in each["curve"]] for each in (whole, taken_up)]
    assert said[0] == said[1]
