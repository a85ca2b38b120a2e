"""Prompt tuning: reserved ids above the vocabulary are learned rows, and never reach the table below."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import deltatune as dt
from deltatune.host import deltas
from tests.support.cases import shaken
from tests.support.hosts import VOCABULARY, Llama, ids
from tests.support.linear_host import near

D = 4


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


class Looked(TorchFunctionMode):
    """The ids that the table is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.embedding:
            self.ids += args[0].flatten().tolist()
        return func(*args, **(kwargs or {}))


def table() -> Any:
    return nn.Sequential(nn.Embedding(9, D, dtype=torch.float64))


def prompt(model: nn.Module, name: str = "default") -> Any:
    ((_, _, _, d),) = deltas(model, name)
    return d


@pytest.mark.parametrize("a", [1.0, 0.5])
def test_reserved_ids_are_rows_and_others_the_tables(a: float) -> None:
    """first + i -> a P[i]; any other id -> its own row, to the last bit."""
    model = table()
    dt.inject(model, dt.Prompt.on("0", length=3))
    d = prompt(shaken(model))
    assert dt.prompt_ids(model) == [9, 10, 11]
    dt.use(model, default=a)
    got = model(torch.tensor([[11, 0, 9], [8, 10, 10]]))
    want = [[a * d.P[2], model[0].weight[0], a * d.P[0]], [model[0].weight[8], a * d.P[1], a * d.P[1]]]
    assert torch.equal(got, torch.stack([torch.stack(row) for row in want]))


def test_reserved_ids_never_reach_the_table() -> None:
    model = table()
    dt.inject(model, dt.Prompt.on("0", length=3), name="one")
    dt.inject(model, dt.LoRA.on("0", rank=2), name="other")
    dt.inject(model, dt.Prompt.on("0", length=2), name="two")
    shaken(model)
    with Looked() as looked:
        model(torch.tensor([3, *dt.prompt_ids(model, "one"), *dt.prompt_ids(model, "two"), 8]))
    assert {3, 8} <= set(looked.ids) and max(looked.ids) < 9


def test_every_named_prompt_has_its_own_range() -> None:
    model = table()
    for name, length in (("one", 3), ("two", 2)):
        dt.inject(model, dt.Prompt.on("0", length=length), name=name)
    assert dt.prompt_ids(model, "one") == [9, 10, 11] and dt.prompt_ids(model, "two") == [12, 13]
    shaken(model)
    one, two = prompt(model, "one"), prompt(model, "two")
    both = model(torch.tensor([10, 13, 5]))
    assert torch.equal(both, torch.stack([one.P[1], two.P[1], model[0].weight[5]]))
    dt.eject(model, "one")
    dt.inject(model, dt.Prompt.on("0", length=1), name="three")
    taken = dt.prompt_ids(model, "two") + dt.prompt_ids(model, "three")
    assert len(set(taken)) == 3 and dt.prompt_ids(model, "two") == [12, 13]
    assert torch.equal(model(torch.tensor(13)), two.P[1])


def test_switched_off_its_ids_raise_and_others_do_not() -> None:
    model = table()
    for name in ("one", "two"):
        dt.inject(model, dt.Prompt.on("0", length=2), name=name)
    with dt.active(model, "two"):
        with pytest.raises(dt.NotReached, match=r"those of a prompt \(9\.\.10\) that is switched off; switch it on"):
            model(torch.tensor([1, 10]))
        assert model(torch.tensor([1, 11, 12])).shape == (3, D)
    with dt.active(model, "one"), pytest.raises(dt.NotReached, match=r"\(11\.\.12\)"):
        model(torch.tensor([12]))
    assert model(torch.tensor([9, 12])).shape == (2, D)


def test_a_prompt_is_not_moved_by_a_lora_around_it() -> None:
    """LoRA's change of the table belongs to the table's ids, whichever of the two came first."""
    for order in (("lora", "prompt"), ("prompt", "lora")):
        model, rules = table(), {"lora": dt.LoRA.on("0", rank=2), "prompt": dt.Prompt.on("0", length=2)}
        for name in order:
            dt.inject(model, rules[name], name=name)
        shaken(model)
        lora, d = prompt(model, "lora"), prompt(model, "prompt")
        rows = model[0].weight + lora.scale * (lora.B @ lora.A).T
        near(model(torch.tensor([4, 9, 10, 0])), torch.stack([rows[4], d.P[0], d.P[1], rows[0]]))


def test_it_starts_from_the_tokens_named() -> None:
    model = table()
    dt.inject(model, dt.Prompt.on("0", length=5, tokens=(7, 2)))
    assert torch.equal(prompt(model).P, model[0].weight[[7, 2, 7, 2, 7]])
    assert prompt(model).P.data_ptr() != model[0].weight.data_ptr()


def test_it_starts_from_rows_of_frequent_ids() -> None:
    """The ids are below 5,000, each drawn at most once; the rows are the table's, no noise."""
    big = nn.Embedding(6000, 2)
    d = dt.Prompt(big, length=4000)
    rows = {tuple(r): i for i, r in enumerate(big.weight.tolist())}
    chosen = [rows[tuple(r)] for r in d.P.tolist()]
    assert max(chosen) < 5000 and len(set(chosen)) == 4000
    assert chosen != sorted(chosen)


class Embedder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, D)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.table(input_ids)


def test_it_starts_from_an_example_without_its_padding() -> None:
    example = {
        "input_ids": torch.tensor([[0, 0, 5], [0, 7, 1]]),
        "attention_mask": torch.tensor([[0, 0, 1], [0, 1, 1]]),
    }
    model = Embedder()
    dt.inject(model, dt.Prompt.on(length=4), example=example)
    assert torch.equal(prompt(model).P, model.table.weight[[5, 7, 1, 5]])
    named = Embedder()
    dt.inject(named, dt.Prompt.on(length=2, tokens=(3,)), example=example)
    assert torch.equal(prompt(named).P, named.table.weight[[3, 3]])


def test_a_prompt_started_on_a_text_is_that_text() -> None:
    model, text = Llama().model(), ids(1, 4)
    rest = torch.tensor([[5, 6, 7]])
    want = model(torch.cat([text, rest], 1)).logits
    dt.inject(model, dt.Prompt.on(length=4, tokens=tuple(text[0].tolist())))
    front = torch.tensor([dt.prompt_ids(model)])
    assert front[0, 0] == VOCABULARY
    assert torch.equal(model(torch.cat([front, rest], 1)).logits, want)


def test_gradients_reach_the_rows_that_stand_there() -> None:
    model = table()
    dt.inject(model, dt.Prompt.on("0", length=3))
    d = prompt(model)
    weights = torch.randn(4, D, dtype=torch.float64)
    (model(torch.tensor([9, 1, 11, 9])) * weights).sum().backward()
    assert torch.equal(d.P.grad, torch.stack([weights[0] + weights[3], torch.zeros(D).double(), weights[2]]))


def test_only_a_prompt_has_ids() -> None:
    model = table()
    dt.inject(model, dt.LoRA.on("0", rank=2))
    with pytest.raises(dt.NoMatch, match="'default' holds no prompt"):
        dt.prompt_ids(model)
