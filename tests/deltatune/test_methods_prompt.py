"""Prompt tuning: reserved ids above the vocabulary are learned rows, and never reach the table below."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
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


def gemma() -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48}
    config = transformers.Gemma3TextConfig(
        **sizes, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8
    )
    return transformers.Gemma3ForCausalLM(config).eval()


def test_on_a_table_that_scales_it_starts_from_what_the_table_gives() -> None:
    model, text = gemma(), torch.tensor([[5, 20, 21, 6, 7]])
    want = model(text).logits
    dt.inject(model, dt.Prompt.on(length=2, tokens=(20, 21)))
    ids = text.clone()
    ids[0, 1:3] = torch.tensor(dt.prompt_ids(model))
    assert torch.equal(model(ids).logits, want)
    e = model.get_input_embeddings()
    assert torch.equal(e(ids[0, 1:3]), e(torch.tensor([20, 21])))


def test_a_table_with_a_largest_norm_is_left_as_it_is() -> None:
    host = nn.Embedding(9, D, max_norm=0.1)
    before = host.weight.detach().clone()
    d = dt.Prompt(host, length=2, tokens=(3, 4))
    assert torch.equal(host.weight, before)
    near(d.P, host(torch.tensor([3, 4])))


class Normed(nn.Module):
    """A norm right behind the table undoes any scale of its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.norm = nn.Embedding(9, D), nn.LayerNorm(D)

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.norm(self.table(input_ids))


def test_behind_a_norm_strengths_fade_to_the_mean_row() -> None:
    model = Normed()
    dt.inject(model, dt.Prompt.on(length=2, tokens=(3, 4)))
    ids, mean = torch.tensor(dt.prompt_ids(model)), model.table.weight.mean(0)
    full = model(ids)
    assert torch.equal(full, model(torch.tensor([3, 4])))
    for strength in (0.5, 0.25):
        with dt.active(model, default=strength):
            near(model.table(ids), mean + strength * (model.table.weight[[3, 4]] - mean))
            assert (model(ids) - full).abs().max() > 0.01
    assert not [k for k in model.state_dict() if "centre" in k]


def bart() -> Any:
    torch.manual_seed(0)
    sizes = {f"{side}_{n}": v for side in ("encoder", "decoder") for n, v in (("layers", 1), ("attention_heads", 2))}
    config = transformers.BartConfig(
        vocab_size=40, d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=64,
        scale_embedding=True, num_labels=3, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, **sizes,
    )  # fmt: skip
    return transformers.BartForSequenceClassification(config).eval()


def test_one_prompt_stands_in_the_tables_of_an_encoder_and_a_decoder(tmp_path: Any) -> None:
    """BART's classifier gives its decoder the encoder's ids, and pools at the end of the text."""
    model, text = bart(), torch.tensor([[5, 20, 21, 6, 2], [7, 20, 21, 8, 2]])
    want = model(text).logits
    dt.inject(model, dt.Prompt.on(length=2, tokens=(20, 21)))
    assert len({p for p, *_ in deltas(model)}) == 2 and len(dt.parameters(model)) == 1
    ids = text.clone()
    ids[:, 1:3] = torch.tensor(dt.prompt_ids(model))
    near(model(ids).logits, want, 1000)
    dt.verify(model, input_ids=ids)
    shaken(model)
    dt.save(model, tmp_path / "prompt")
    other = bart()
    dt.load(other, tmp_path / "prompt")
    assert torch.equal(other(ids).logits, model(ids).logits) and len(dt.parameters(other)) == 1


class PoolsAtTheLargest(Embedder):
    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.table(input_ids)[torch.arange(len(input_ids)), input_ids.argmax(-1)]


class AnotherTable(Embedder):
    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Embedding(9, D)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.table(input_ids) + self.other(input_ids)


@pytest.mark.parametrize("model", [PoolsAtTheLargest(), AnotherTable()], ids=lambda m: type(m).__name__)
def test_ids_that_are_read_elsewhere_too_are_told_before_training(model: Any) -> None:
    dt.inject(model, dt.Prompt.on("table", length=2, tokens=(3, 4)))
    P, random = prompt(model).P.detach().clone(), torch.get_rng_state()
    ids = torch.tensor([[8, *dt.prompt_ids(model), 5], [*dt.prompt_ids(model), 8, 2]])
    with pytest.raises(dt.NotReached, match="a prompt made of tokens is not those tokens here"):
        dt.verify(model, ids)
    assert torch.equal(prompt(model).P, P) and torch.equal(torch.get_rng_state(), random) and model.training


def test_a_prompt_that_is_read_in_its_table_alone_passes_beside_other_deltas() -> None:
    model = Llama().model()
    dt.inject(model, dt.Prompt.on(length=2), dt.LoRA.on(rank=2))
    dt.inject(model, dt.LoRA.on("*.embed_tokens", rank=2), name="table")
    shaken(model)
    dt.verify(model, torch.tensor([[4, *dt.prompt_ids(model), 5]]))
