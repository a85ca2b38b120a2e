"""Deltas on attention: every way in is opened, and where there is none, something is raised."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from torch import Tensor, nn

import deltatune as dt
from tests.laws import image
from tests.support.cases import assert_changed, assert_close, base_output, run, shaken
from tests.support.hosts import HEADS, HOSTS, WIDTH, EagerLlama, Host, Llama

pytestmark = pytest.mark.law
LLAMA, EAGER = Llama(), EagerLlama()


def implementations(model: nn.Module) -> set[str | None]:
    return {m.config._attn_implementation for m in model.modules() if isinstance(m, transformers.PreTrainedModel)}


def test_eager_attention_is_opened_and_closed_again() -> None:
    model = EAGER.model()
    assert implementations(model) == {"eager"}
    dt.inject(model, dt.Prefix.on(length=2), name="a")
    dt.inject(model, dt.Prefix.on(length=3), name="b")
    shaken(model)
    both = run(EAGER, model)
    dt.eject(model, "a")
    assert_changed(run(EAGER, model), both, EAGER.reduction)
    assert_changed(run(EAGER, model), base_output(EAGER), EAGER.reduction)
    dt.eject(model, "b")
    assert implementations(model) == {"eager"}
    assert torch.equal(run(EAGER, model), base_output(EAGER))


def test_eager_and_sdpa_agree() -> None:
    """One prefix, two ways into attention; weights on request have the prefix's columns in front."""
    outs = []
    for host in (LLAMA, EAGER):
        model = host.model()
        torch.manual_seed(0)
        dt.inject(model, dt.Prefix.on(length=3, gated=False))
        outs.append(run(host, shaken(model)))
    assert_close(outs[1], outs[0], LLAMA.reduction)


@pytest.mark.parametrize("host", [pytest.param(h, id=h.name) for h in HOSTS if h.pads and h.takes_ids])
@pytest.mark.parametrize("rule", [dt.Prefix.on(length=3), dt.Prompt.on(length=3)], ids=["Prefix", "Prompt"])
def test_an_example_starts_deltas_from_its_real_tokens_alone(host: Host, rule: dt.Rule) -> None:
    batch = host.batch(rows=2, tokens=5)
    model = host.model()
    dt.inject(model, rule, example=host.cut(batch, 0, 3))
    for side in ("left", "right"):
        other = host.model()
        dt.inject(other, rule, example=host.padded(batch, [3, 5], side))
        for (_, want), (name, got) in zip(dt.parameters(model), dt.parameters(other)):
            assert_close(got.detach(), want.detach(), host.reduction)
            assert name.endswith((".k", ".v", ".P"))


@pytest.mark.parametrize("host", [pytest.param(h, id=h.name) for h in (LLAMA, EAGER)])
def test_threads_that_run_one_model_all_reach_its_prefix(host: Host) -> None:
    model = host.model()
    dt.inject(model, dt.Prefix.on(length=2))
    shaken(model)
    for name, module in model.named_modules():
        if name.endswith("o_proj"):  # the host goes on after attention
            module.register_forward_hook(lambda *_: time.sleep(0.005))
    want = run(host, model)
    with ThreadPoolExecutor(4) as threads:
        for out in threads.map(lambda _: run(host, model), range(8)):
            assert torch.equal(out, want)


class ByHand(nn.Module):
    """Attention without a softmax, which no prefix can enter."""

    def __init__(self) -> None:
        super().__init__()
        self.n_heads = HEADS
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return (self.q(x) @ self.k(x).transpose(-1, -2)).relu() @ self.v(x)


def test_attention_without_a_softmax_raises_rather_than_go_without_its_prefix() -> None:
    model, x = nn.Sequential(ByHand(), nn.Linear(WIDTH, 2)), torch.randn(2, 3, WIDTH)
    before = image(model)
    with pytest.raises(dt.NotReached):
        dt.inject(model, dt.Prefix.on("0", length=1), example={"input": x})
    assert image(model) == before
    dt.inject(model, dt.Prefix.on("0", length=1))
    for attempt in (lambda: model(x), lambda: dt.verify(model, x)):
        with pytest.raises(dt.NotReached):
            attempt()
    dt.use(model)
    model(x)


@pytest.mark.parametrize("host", [pytest.param(h, id=h.name) for h in (LLAMA, EAGER)])
def test_a_delta_around_a_whole_attention_module_writes_the_cache_once(host: Host) -> None:
    """The host takes hidden_states= by keyword, returns a tuple, and writes keys and values as it runs."""
    model = host.model()
    dt.inject(model, dt.Adapter.on("*.self_attn", width=3), dt.IA3.on("*.self_attn"), dt.Prefix.on(length=2))
    shaken(model)
    batch = host.batch(rows=1, tokens=9)
    for strength in (1.0, 0.5, 0.0):
        dt.use(model, default=strength)
        cache = transformers.DynamicCache(config=model.config)  # type: ignore[arg-type]
        with torch.no_grad():
            whole = model(**batch, past_key_values=cache).logits
            assert cache.get_seq_length() == 9
            start = transformers.DynamicCache(config=model.config)  # type: ignore[arg-type]
            model(input_ids=batch["input_ids"][:, :5], past_key_values=start)
            rest = model(input_ids=batch["input_ids"][:, 5:], past_key_values=start).logits
        assert start.get_seq_length() == 9
        assert_close(rest, whole[:, 5:], host.reduction)
