"""Layers that read one tensor are computed at one call: the same numbers, and never where it would be wrong."""

from __future__ import annotations

import copy
import pickle
import threading
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5Model

import deltatune as dt
from deltatune import fast, together
from deltatune.host import deltas_of, hosts
from experiments.run.prepare import checkpoint_activations
from tests.support.cases import shaken
from tests.support.tolerance import agree, reduction


def llama(*rules: dt.Rule) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    dt.inject(model, *(rules or [dt.LoRA.on(rank=3)]))
    return shaken(model)


def close(got: Any, want: Any) -> None:
    """Assert equality up to the rounding of a pass through `llama`, forward and back; no sum of it is longer."""
    agree(got, want, 2 * reduction(llama()))


IDS = torch.arange(2, 14).view(2, 6)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many layers each product was for, as they come."""
    seen: list[int] = []
    apply = fast.LoRALinears.apply

    def counted(x, p, scales, *layers):
        seen.append(len(scales))
        return apply(x, p, scales, *layers)

    monkeypatch.setattr(fast.LoRALinears, "apply", counted)
    return seen


def gradients(model: nn.Module) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    logits = model(input_ids=IDS).logits
    logits.square().sum().backward()
    return logits.detach(), {n: p.grad.clone() for n, p in dt.parameters(model) if p.grad is not None}


def apart(model: nn.Module) -> nn.Module:
    for _, host in hosts(model):
        deltas_of(host)._together = None
    return model


@pytest.mark.parametrize("method", [dt.LoRA, dt.DoRA])
def test_query_key_value_and_gate_up_are_one_product_each(sizes: list[int], method: type[dt.LoRA]) -> None:
    model = llama(method.on(rank=3))
    out, got = gradients(model)
    assert sizes == [3, 1, 2, 1] * 2
    again, want = gradients(apart(model))
    assert sizes[8:] == [1] * 14
    close(out, again)
    close(got, want)


def test_layers_that_read_one_tensor_drop_the_same_of_it(sizes: list[int]) -> None:
    model = llama(dt.LoRA.on(rank=3, dropout=0.5)).train()
    gradients(model)
    assert sizes == [3, 1, 2, 1] * 2
    attention = model.model.layers[0].self_attn  # type: ignore[union-attr]
    readers = (attention.q_proj, attention.k_proj, attention.v_proj)
    for delta in attention.modules():
        if isinstance(delta, dt.LoRA):  # every output's change is then the sum of what is kept, times a constant
            nn.init.ones_(delta.A)
            nn.init.ones_(delta.B)
    x = torch.rand(1, 4, 32, requires_grad=True)
    first, *others = [(host(x) - F.linear(x, host.weight, host.bias))[..., 0] for host in readers]
    for change in others:
        close(first, change)
    with torch.no_grad():
        alone = [(host(x) - F.linear(x, host.weight, host.bias))[..., 0] for host in (*readers, readers[0])]
    for change in alone[1:3]:
        close(alone[0], change)
    assert not torch.equal(alone[0], alone[3])  # the next pass over the same x
    assert not torch.equal(first, (readers[0](x) - F.linear(x, readers[0].weight))[..., 0])  # the next call's is new


def test_alone_where_the_dropout_differs(sizes: list[int]) -> None:
    rules = (dt.LoRA.on("*.q_proj", rank=3, dropout=0.5), dt.LoRA.on("*.k_proj|*.v_proj", rank=3))
    model = llama(*rules)
    gradients(model.train())
    assert sizes == [1] * 6
    sizes.clear()
    gradients(model.eval())
    assert sizes == [3] * 2


def test_alone_without_gradients_under_hooks_and_checkpointing(sizes: list[int]) -> None:
    model = llama()
    with torch.no_grad():
        model(input_ids=IDS)
    assert sizes == [1] * 14
    sizes.clear()
    dt.verify(model, input_ids=IDS)
    assert sizes == [1] * 14
    sizes.clear()
    checkpoint_activations(model.train())
    gradients(model)
    assert set(sizes) == {1}


def test_checkpointing_changes_no_mask(sizes: list[int]) -> None:
    model = llama(dt.LoRA.on(rank=3, dropout=0.5)).train()
    torch.manual_seed(3)
    out, want = gradients(model)
    stands = torch.get_rng_state()
    checkpoint_activations(model)
    torch.manual_seed(3)
    again, got = gradients(model)
    assert torch.equal(torch.get_rng_state(), stands)
    assert set(sizes[8:]) == {1}
    close(again, out)
    close(got, want)
    assert not torch.equal(gradients(model)[0], out)  # the next pass draws anew


def test_reentrant_checkpointing_changes_no_mask() -> None:
    """It runs the forward without gradients, and with them in the backward."""
    model = llama(dt.LoRA.on(rank=3, dropout=0.5)).train()
    feed_forward = model.model.layers[0].mlp  # type: ignore[union-attr]
    x, found = torch.randn(4, 32, requires_grad=True), []
    for run in (feed_forward, partial(checkpoint, feed_forward, use_reentrant=True)):
        model.zero_grad()
        torch.manual_seed(3)
        out = run(x)
        out.square().sum().backward()
        found.append([out, *(p.grad for p in feed_forward.parameters() if p.requires_grad)])
    close(*found)


def test_alone_where_the_live_deltas_differ(sizes: list[int]) -> None:
    model = llama(dt.LoRA.on("*.q_proj|*.v_proj", rank=3))
    gradients(model)
    assert sizes == [2] * 2  # query and value; key has no delta
    dt.inject(model, dt.LoRA.on("*.k_proj", rank=2), name="other")
    sizes.clear()
    gradients(model)
    assert sizes == [3] * 2
    dt.use(model, "default")
    sizes.clear()
    gradients(model)
    assert sizes == [1] * 4
    dt.eject(model)
    assert not any("together" in vars(m) for m in model.modules())


def test_alone_where_the_methods_differ(sizes: list[int]) -> None:
    """A subclass may compute something else, so it is not taken for what it inherits from."""

    class TwiceLoRA(dt.LoRA):
        def forward(self, base, x, *args, strength=1.0, **kwargs):
            return super().forward(base, x, *args, strength=2 * strength, **kwargs)

    model = llama(TwiceLoRA.on("*.q_proj|*.k_proj|*.v_proj", rank=3), dt.LoRA.on("*.gate_proj", rank=3))
    dt.inject(model, dt.DoRA.on("*.up_proj", rank=3), name="other")
    out, _ = gradients(model)
    assert sizes == [1] * 10
    with torch.no_grad():
        close(apart(model)(input_ids=IDS).logits, out)


def attention() -> list[nn.Module]:
    """Query, key and value of one layer."""
    part = llama().model.layers[0].self_attn  # type: ignore[union-attr]
    return [part.q_proj, part.k_proj, part.v_proj]


def test_threads_keep_what_they_computed_apart(sizes: list[int]) -> None:
    q, k, v = attention()
    x, y = torch.randn(4, 32), torch.randn(4, 32)
    q(x)
    thread = threading.Thread(target=lambda: [host(y) for host in (q, k, v)])
    thread.start()
    thread.join()
    k(x), v(x)
    assert sizes == [3, 3]


def test_a_thread_that_gives_up_does_not_disturb_another(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = attention()
    x = torch.randn(4, 32)
    want = q(x), k(x), v(x)

    def given_up_meanwhile(host):
        deltas_of(host)._together.hosts = ()
        return only_call(host)

    only_call = together.only_call
    monkeypatch.setattr(together, "only_call", given_up_meanwhile)
    close((q(x), k(x), v(x)), want)


def test_without_gradients_one_is_computed_alone_in_every_pass(sizes: list[int]) -> None:
    q, k, v = attention()
    for _ in range(2):
        x = torch.randn(4, 32)
        q(x)
        with torch.no_grad():
            assert not k(x).requires_grad
        assert v(x).requires_grad
    assert sizes == [3, 1] * 2


def test_a_tensor_that_was_changed_in_place_is_another(sizes: list[int]) -> None:
    q, k, v = attention()
    x = torch.randn(4, 32)
    q(x)
    x.add_(1)
    got = k(x), v(x)
    assert sizes == [3, 1, 1]
    close(got, (k(x.clone()), v(x.clone())))
    q(x), k(x), v(x)  # and the next pass is not computed in vain
    assert sizes[5:] == [1, 1, 1]


def test_inference_tensors_count_no_changes(sizes: list[int]) -> None:
    hosts = attention()
    with torch.inference_mode():
        x = torch.randn(4, 32)
        want = [host(x) for host in hosts]
    for host in hosts:
        host.requires_grad_(False)
    close([host(x) for host in hosts], want)
    assert sizes == [1] * 6


def test_another_tensor_is_never_served(sizes: list[int]) -> None:
    """A cross-attention that is misread: right all the same, and given up on after the first pass."""
    torch.manual_seed(0)

    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q_proj, self.k_proj, self.v_proj = (nn.Linear(8, 8) for _ in "qkv")

        def forward(self, x, y):
            return self.q_proj(x) + self.k_proj(y) + self.v_proj(y)

    model = Cross()
    dt.inject(model, dt.LoRA.on("*_proj", rank=2))
    shaken(model)
    x, y = torch.randn(4, 8), torch.randn(4, 8)
    with torch.no_grad():
        want = model(x, y)
    sizes.clear()
    close(model(x, y), want)
    assert sizes == [3, 1, 1]
    sizes.clear()
    close(model(x, y), want)
    assert sizes == [1, 1, 1]


def test_keys_and_values_of_a_cross_attention_read_one_tensor_and_its_queries_another(sizes: list[int]) -> None:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=50, d_model=16, d_kv=4, d_ff=24, num_layers=1, num_heads=4, feed_forward_proj="gated-gelu"
    )
    model = T5Model(config).eval()
    dt.inject(model, dt.LoRA.on(rank=2))
    shaken(model)
    model(input_ids=IDS, decoder_input_ids=IDS).last_hidden_state.sum().backward()
    assert sorted(sizes) == sorted([3, 1, 2, 1, *[3, 1], *[1, 2, 1], *[2, 1]])


def test_copies_have_companions_of_their_own(sizes: list[int]) -> None:
    model = llama()
    out, want = gradients(model)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        apart(model)
        sizes.clear()
        again, got = gradients(other)
        assert sizes == [3, 1, 2, 1] * 2
        assert torch.equal(again, out)
        close(got, want)
