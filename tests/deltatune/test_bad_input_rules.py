"""Rules, names and hyperparameters that cannot be meant: an error that says what, where and what next, and a model
that is as it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import deltatune as dt
from deltatune.host import deltas, hosts, names, strengths_of
from tests.laws import image
from tests.support.hosts import Llama, ids
from tests.support.linear_host import linear


@pytest.fixture
def model() -> nn.Module:
    return Llama().model()


def refused(model: nn.Module, error: type[dt.DeltaError], message: str, verb: Callable[[], Any]) -> None:
    """The verb raises this, and leaves classes, keys, Parameters, bytes, modes and gradients' flags alone."""
    before = image(model), [(m.training, p.requires_grad) for m in model.modules() for p in m.parameters()]
    with pytest.raises(error, match=message):
        verb()
    assert before == (image(model), [(m.training, p.requires_grad) for m in model.modules() for p in m.parameters()])


NO_MATCH = {
    "glob": (dt.LoRA.on("*.nothing"), r"LoRA.on\('\*.nothing'\): '\*.nothing' matches no module of LlamaForCausalLM"),
    "part of a glob": (dt.LoRA.on("*.q_proj|*.w_proj"), r"'\*.w_proj' matches no module .*near: .*_proj"),
    "empty part": (dt.LoRA.on("*.q_proj|"), "there is nothing between two"),
    "predicate": (dt.LoRA.on(lambda path, module: False, rank=2), "matches no module of LlamaForCausalLM; give where="),
    "case": (dt.LoRA.on("*.Q_PROJ"), "matches no module"),
}


@pytest.mark.parametrize("case", NO_MATCH)
@pytest.mark.parametrize("first", [(), (dt.BitFit.on(),)], ids=["alone", "behind another"])
@pytest.mark.parametrize("verb", [dt.inject, dt.plan])
def test_a_rule_that_matches_nothing(case: str, first: tuple[dt.Rule, ...], verb: Any, model: nn.Module) -> None:
    rule, message = NO_MATCH[case]
    refused(model, dt.NoMatch, message, lambda: verb(model, *first, rule))
    assert not deltas(model)


def test_no_rule_at_all(model: nn.Module) -> None:
    refused(model, dt.NoMatch, "no rule given; say for example", lambda: dt.inject(model))


@pytest.mark.parametrize("kind", [m for m in dt.METHODS.values() if m is not dt.Head])
def test_usual_sites_of_a_model_without_any(kind: type[dt.DeltaModule]) -> None:
    """A model that is one ReLU has no block, no embedding and no parameter."""
    model = nn.Sequential(nn.ReLU())
    refused(
        model,
        dt.NoMatch,
        "matches no module of Sequential|no module spans|no token embedding",
        lambda: dt.inject(model, kind.on()),
    )


@pytest.mark.parametrize("kind", dt.METHODS.values())
def test_an_unknown_hyperparameter(kind: type[dt.DeltaModule]) -> None:
    """Said where the rule is written, with those that there are."""
    with pytest.raises(dt.DeltaError, match=rf"^{kind.__name__} has no hyperparameter rnak; it has "):
        kind.on("*.q_proj", rnak=4)


def test_a_wrong_type_is_no_hyperparameter(model: nn.Module) -> None:
    with pytest.raises(dt.DeltaError, match=r"q_proj: LoRA: rank is a whole number, not '8'"):
        dt.inject(model, dt.LoRA.on("*.q_proj", rank="8"))
    assert not deltas(model)


BAD_NAMES = ["", "a.b", ".", "keys", "pop", "forward", "training", "_modules", "__class__", "to"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_cannot_be_one(name: str, model: nn.Module, tmp_path: Path) -> None:
    message = f"{name!r} cannot name a delta"
    refused(model, dt.DeltaError, message, lambda: dt.inject(model, dt.LoRA.on(), name=name))
    other = Llama().model()
    dt.inject(other, dt.LoRA.on())
    dt.save(other, tmp_path / "a.safetensors")
    refused(model, dt.DeltaError, message, lambda: dt.load(model, tmp_path / "a.safetensors", name=name))
    tuned = Llama().model()
    nn.init.normal_(tuned.lm_head.weight)  # type: ignore[union-attr]
    refused(model, dt.DeltaError, message, lambda: dt.diff(tuned, model, name=name))


@pytest.mark.parametrize("name", ["my-delta", "7", "a b", "default", "größe", "strengths"])
def test_a_name_that_can(name: str, model: nn.Module, tmp_path: Path) -> None:
    dt.inject(model, dt.LoRA.on("*.q_proj", rank=2), name=name)
    assert names(model) == [name]
    with dt.active(model, name):
        dt.verify(model, ids(1, 3))
    dt.save(model, tmp_path / "a.safetensors", name=name)
    dt.eject(model, name)
    dt.load(model, tmp_path / "a.safetensors", name=name)
    assert names(model) == [name]


def test_a_name_that_is_taken(model: nn.Module, tmp_path: Path) -> None:
    path, message = tmp_path / "a.safetensors", "a delta named 'sql' is injected already; eject it first, or"
    dt.inject(model, dt.LoRA.on("*.q_proj"), name="sql")
    dt.save(model, path, "sql")
    refused(model, dt.DeltaError, message, lambda: dt.inject(model, dt.LoRA.on("*.v_proj"), name="sql"))
    refused(model, dt.DeltaError, message, lambda: dt.load(model, path, "sql"))


UNKNOWN: dict[str, Callable[[nn.Module, Path], Any]] = {
    "use": lambda m, path: dt.use(m, "sqll"),
    "use with a strength": lambda m, path: dt.use(m, sqll=0.5),
    "use beside a known": lambda m, path: dt.use(m, "sql", "sqll"),
    "active": lambda m, path: dt.active(m, "sqll").__enter__(),
    "eject": lambda m, path: dt.eject(m, "sqll"),
    "parameters": lambda m, path: dt.parameters(m, "sqll"),
    "merge": lambda m, path: dt.merge(m, "sqll"),
    "merged": lambda m, path: dt.merged(m, "sqll").__enter__(),
    "save": lambda m, path: dt.save(m, path / "a.safetensors", "sqll"),
    "prompt_ids": lambda m, path: dt.prompt_ids(m, "sqll"),
}


@pytest.mark.parametrize("verb", UNKNOWN)
def test_a_name_that_nobody_injected(verb: str, model: nn.Module, tmp_path: Path) -> None:
    dt.inject(model, dt.LoRA.on("*.q_proj"), name="sql")
    message = "no delta named 'sqll' is injected; there are: sql"
    refused(model, dt.NoMatch, message, lambda: UNKNOWN[verb](model, tmp_path))
    assert dict(deltas(model)[0][3].named_parameters()) and not list(tmp_path.iterdir())
    assert all(strengths_of(host) == {"sql": 1.0} for _, host in hosts(model))


def test_nothing_is_injected(model: nn.Module) -> None:
    refused(model, dt.NoMatch, "there are: none", lambda: dt.use(model, "sql"))
    refused(model, dt.NoMatch, "no delta is live in this model, so there is nothing to merge", lambda: dt.merge(model))
    refused(model, dt.NoMatch, "no delta is live in this model: inject one", lambda: dt.verify(model, ids(1, 3)))


def test_merging_what_is_switched_off(model: nn.Module) -> None:
    dt.inject(model, dt.LoRA.on("*.q_proj"), name="sql")
    dt.use(model)
    refused(model, dt.DeltaError, "'sql' is switched off; switch it on with use()", lambda: dt.merge(model, "sql"))


def test_an_example_that_breaks_in_the_model(model: nn.Module) -> None:
    """Whatever the forward raises comes through, and the model is as it was: its mode, too."""
    before = image(model)
    with pytest.raises(IndexError):
        dt.inject(model, dt.Prefix.on(length=2), example={"input_ids": torch.tensor([[1000]])})
    assert image(model) == before and all(m.training for m in model.modules())


class Late(dt.DeltaModule):
    """Refuses from its second host on."""

    made = 0

    def __init__(self, host: nn.Module):
        super().__init__()
        Late.made += 1
        if Late.made > 1:
            raise dt.DeltaError("not this one")


def test_an_inject_that_fails_late_changes_nothing(model: nn.Module) -> None:
    Late.made = 0
    message = "^model.layers.0.self_attn.k_proj: not this one"
    refused(model, dt.DeltaError, message, lambda: dt.inject(model, dt.BitFit.on(), Late.on("*.q_proj|*.k_proj")))
    assert Late.made == 2 and not deltas(model)


def test_a_host_that_cannot_be_one(model: nn.Module) -> None:
    attention: Any = model.get_submodule("model.layers.1.self_attn")
    attention.forward = attention.forward
    message = "^model.layers.1.self_attn: forward is patched on the instance"
    refused(model, dt.DeltaError, message, lambda: dt.inject(model, dt.Prefix.on(length=2)))
    del attention.forward
    layer = nn.MultiheadAttention(4, 2)
    message = "^out_proj: nn.MultiheadAttention reads out_proj.weight and never calls the module; choose the attention"
    refused(layer, dt.NotReached, message, lambda: dt.inject(layer, dt.LoRA.on("out_proj")))


REFUSED = {
    "rank": (dt.LoRA.on("0", rank=0), linear, "rank must be at least 1, not 0"),
    "dropout": (dt.LoRA.on("0", dropout=1.0), linear, "dropout must be in"),
    "dropout of ids": (
        dt.LoRA.on("0", dropout=0.1),
        lambda: nn.Embedding(5, 4),
        "ids, which cannot be dropped",
    ),
    "DoRA rows": (
        dt.DoRA.on("0"),
        lambda: nn.Embedding(5, 4),
        "DoRA needs the rows of a plain linear weight",
    ),
    "DoRA norm": (dt.DoRA.on("0"), lambda: nn.LayerNorm(5), "DoRA needs the rows of a plain linear weight"),
    "form": (dt.Adapter.on("0", form="beside"), linear, "form is 'serial' or 'parallel', not 'beside'"),
    "act": (dt.Adapter.on("0", act="tanh"), linear, "act is one of relu, gelu, silu, not 'tanh'"),
    "width": (dt.Adapter.on("0", width=0), linear, "width must be at least 1"),
    "parallel ids": (dt.Adapter.on("0", form="parallel"), lambda: nn.Embedding(5, 4), "only the serial form"),
    "IA3 form": (dt.IA3.on("0", form="both"), linear, "not 'both'"),
    "IA3 span": (dt.IA3.on("0", span=(3, 8)), linear, r"span \(3, 8\) does not lie in the host's 7 features"),
    "IA3 empty": (dt.IA3.on("0", span=(3, 3)), linear, "does not lie"),
    "IA3 ids": (dt.IA3.on("0", form="input"), lambda: nn.Embedding(5, 4), "scale its output"),
    "BitFit rows": (dt.BitFit.on("0"), lambda: nn.Embedding(5, 4), "an Embedding has no bias"),
    "Full": (dt.Full.on("0", only=("weigth",)), linear, "no parameter weigth; it has weight, bias"),
    "Full empty": (dt.Full.on("0"), nn.ReLU, "ReLU owns no parameters"),
    "Head empty": (dt.Head.on("0"), nn.ReLU, "ReLU owns no parameters"),
    "Prompt": (dt.Prompt.on("0"), linear, "the host is the input Embedding, not Linear"),
    "Prompt length": (dt.Prompt.on("0", length=0), lambda: nn.Embedding(5, 4), "length must be at least 1"),
    "Prompt tokens": (
        dt.Prompt.on("0", tokens=(1, 5)),
        lambda: nn.Embedding(5, 4),
        "ids below the vocabulary's 5",
    ),
    "Prefix": (dt.Prefix.on("0", length=0), linear, "length must be at least 1"),
    "Prefix heads": (
        dt.Prefix.on("0"),
        linear,
        "does not show its key/value heads and head size; give heads=",
    ),
    "sizes": (dt.Adapter.on("0"), nn.ReLU, "ReLU has no sizes to read"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_its_path(case: str) -> None:
    rule, make, message = REFUSED[case]
    model = nn.Sequential(make())
    with pytest.raises(dt.DeltaError, match=f"^0: .*{message}"):
        dt.inject(model, rule)
    assert [type(m) for m in model.modules()] == [nn.Sequential, type(make())]
