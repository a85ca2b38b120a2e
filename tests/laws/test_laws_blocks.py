"""Blocks belong to the thread or task that entered them, undo what they did and no more, and hold when verbs run
inside them."""

from __future__ import annotations

import asyncio
import copy
import gc
import threading
from collections.abc import AsyncIterator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import deltatune as dt
from deltatune.host import hosts, names, strengths_of
from tests.laws import image
from tests.support.cases import assert_close, base_output, run, shaken
from tests.support.hosts import Llama, Nano

pytestmark = pytest.mark.law
NANO, LLAMA = Nano(), Llama()
FORMS: dict[str, dict[str, float]] = {
    "a": {"a": 1.0}, "b": {"b": 1.0}, "half": {"a": 0.5}, "both": {"a": 1.0, "b": 1.0}, "base": {},
}  # fmt: skip


def small(*rules: dt.Rule) -> nn.Module:
    """Three layers, LoRA as "a" and as "b" on all, or other rules under these names."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6), nn.Linear(6, 3))
    for name, rule in zip("ab", rules or (dt.LoRA.on("0|2|3", rank=2),) * 2):
        dt.inject(model, rule, name=name)
        shaken(model, name)
    return model


X = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def outputs(model: nn.Module) -> dict[str, Tensor]:
    wanted = {}
    for form, strengths in FORMS.items():
        with dt.active(model, **strengths):
            wanted[form] = model(X)
    return wanted


def test_blocks_are_left_in_any_order() -> None:
    """The last one entered and still open rules; with none, the defaults do."""
    model = small()
    want, both = outputs(model), model(X)
    for order in permutations(range(3)):
        blocks = {i: dt.active(model, **FORMS[form]) for i, form in enumerate(("a", "b", "half"))}
        for block in blocks.values():
            block.__enter__()
        for i in order:
            assert torch.equal(model(X), want[("a", "b", "half")[max(blocks)]])
            blocks.pop(i).__exit__(None, None, None)
        assert torch.equal(model(X), both)


def test_use_inside_a_block_holds_at_once_and_after_it() -> None:
    model = small()
    want = outputs(model)
    with dt.active(model, "a"):
        dt.use(model, "b")
        assert torch.equal(model(X), want["b"])
        with dt.active(model, a=0.5):
            assert torch.equal(model(X), want["half"])
        assert torch.equal(model(X), want["b"])
    assert torch.equal(model(X), want["b"])


def test_inject_and_eject_inside_a_block() -> None:
    model = small()
    with dt.active(model, "a"):
        dt.inject(model, dt.IA3.on("2|3"), name="new")
        shaken(model, "new")
        with_new = model(X)
        assert strengths_of(model[2]) == {"a": 1.0, "b": 0.0, "new": 1.0}
    for block in ({"a": 1.0, "new": 1.0},):
        with dt.active(model, **block):
            assert torch.equal(model(X), with_new)
    with dt.active(model, "a"):
        dt.eject(model, "a")
        assert torch.equal(model(X), dt_off(model))
        dt.inject(model, dt.LoRA.on("0", rank=1), name="a")
        assert strengths_of(model[0])["a"] == 1.0
    with dt.active(model):
        dt.eject(model)
        model(X)
    assert not names(model)


def dt_off(model: nn.Module) -> Tensor:
    with dt.active(model):
        return model(X)


def test_a_block_on_a_part_of_the_model() -> None:
    model = small()
    with dt.active(model, "a"), dt.active(model[2], "b"):
        assert [strengths_of(model[i]) for i in (0, 2)] == [{"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 1.0}]
    assert strengths_of(model[2]) == {"a": 1.0, "b": 1.0}


def test_copies_carry_the_strengths_of_here_and_now() -> None:
    model = small()
    want = outputs(model)
    with dt.active(model, a=0.5):
        twin = copy.deepcopy(model)
    assert torch.equal(twin(X), want["half"]) and not torch.equal(model(X), want["half"])


CALLS = 10_000


@pytest.mark.parametrize("verb", ["active", "use in one, active in the other"])
def test_two_threads_with_different_deltas_over_one_model(verb: str) -> None:
    model = small()
    want = outputs(model)
    wrong: list[str] = []
    gate = threading.Barrier(2)

    @torch.no_grad()
    def work(form: str) -> None:
        gate.wait()
        for i in range(CALLS // 2):
            if i % 10 == 0 and verb != "active" and form == "b":
                dt.use(model, "a", "b")  # the default of others moves; what this thread wants does not
            with dt.active(model, **FORMS[form]):
                if not torch.equal(model(X), want[form]):
                    wrong.append(form)

    threads = [threading.Thread(target=work, args=(form,)) for form in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and torch.equal(model(X), want["both"])


def test_tasks_with_different_deltas_over_one_model() -> None:
    model = small()
    want = outputs(model)

    @torch.no_grad()
    async def work(form: str) -> int:
        wrong = 0
        with dt.active(model, **FORMS[form]):
            for _ in range(CALLS // len(FORMS)):
                await asyncio.sleep(0)
                wrong += not torch.equal(model(X), want[form])
                wrong += not torch.equal(await asyncio.to_thread(model, X), want[form]) if _ % 500 == 0 else 0
        return wrong

    async def all_of_them() -> list[int]:
        return await asyncio.gather(*map(work, FORMS))

    assert asyncio.run(all_of_them()) == [0] * len(FORMS) and torch.equal(model(X), want["both"])


def test_a_thread_begins_with_the_defaults() -> None:
    model = small()
    want = outputs(model)
    dt.use(model, "b")
    with dt.active(model, "a"), ThreadPoolExecutor(1) as pool:
        assert torch.equal(pool.submit(model, X).result(), want["b"])


def test_threads_that_compile_one_model() -> None:
    model = small()
    want = outputs(model)
    torch._dynamo.reset()
    compiled: Any = torch.compile(model, fullgraph=True, backend="eager")
    graphs = []
    with torch.no_grad():
        for _ in range(3):
            for form in FORMS:
                with dt.active(model, **FORMS[form]):
                    assert torch.allclose(compiled(X), want[form], atol=1e-5)
            graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        assert graphs[0] == graphs[-1]  # a block entered again needs no new graph

        def work(form: str) -> bool:
            with torch.no_grad(), dt.active(model, **FORMS[form]):
                return all(torch.allclose(compiled(X), want[form], atol=1e-5) for _ in range(50))

        with ThreadPoolExecutor(2) as pool:
            assert all(pool.map(work, [*FORMS] * 2))


class Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module, reentrant: bool):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)  # type: ignore[return-value]


@pytest.mark.parametrize("left", ["before the backward", "after it", "for another", "in another thread"])
def test_what_checkpointing_runs_again_has_the_strengths_of_its_forward(left: str) -> None:
    model = small()
    with dt.active(model, a=0.5):
        model(X).square().sum().backward()
    want = {n: p.grad.clone() for n, p in dt.parameters(model) if p.grad is not None}
    model.zero_grad()
    block = dt.active(model, a=0.5)
    block.__enter__()
    out = Checkpointed(model, reentrant=False)(X.clone().requires_grad_()).square().sum()
    if left == "after it":
        out.backward()
        block.__exit__(None, None, None)
    elif left == "in another thread":
        thread = threading.Thread(target=out.backward)
        thread.start()
        thread.join()
        block.__exit__(None, None, None)
    else:
        block.__exit__(None, None, None)
        with dt.active(model, **({"b": 1.0} if left == "for another" else {"a": 1.0, "b": 1.0})):
            if left == "before the backward":
                dt.use(model, "b")
            out.backward()
    got = {n: p.grad for n, p in dt.parameters(model) if p.grad is not None}
    assert got.keys() == want.keys()
    for name, g in want.items():
        assert_close(got[name], g, 100)


def test_a_thread_of_the_backward_inherits_the_blocks() -> None:
    """Autograd runs a GPU's part of a backward in a thread of its own, with torch's thread-local state of the caller;
    a reentrant checkpoint runs its forward again there. Here the whole backward is in the caller's thread."""
    model = small()
    with dt.active(model, a=0.5):
        model(X).square().sum().backward()
        want = [p.grad.clone() for _, p in dt.parameters(model, "a")]  # type: ignore[union-attr]
        model.zero_grad()
        Checkpointed(model, reentrant=True)(X.clone().requires_grad_()).square().sum().backward()
    for (_, p), g in zip(dt.parameters(model, "a"), want):
        assert_close(p.grad, g, 100)  # type: ignore[arg-type]


Entered = Callable[[nn.Module], AbstractContextManager[None]]


def test_merged_blocks_are_left_in_any_order() -> None:
    model = small()
    before, want = image(model), outputs(model)
    for order in permutations("ab"):
        blocks = {n: dt.merged(model, n) for n in "ab"}
        for block in blocks.values():
            block.__enter__()
        assert_close(model(X).detach(), want["both"], 100)
        for n in order:
            blocks.pop(n).__exit__(None, None, None)
            assert_close(model(X).detach(), want["both"], 100)
        assert image(model) == before and torch.equal(model(X), want["both"])


def test_verbs_inside_merged() -> None:
    model = small()
    before, want = image(model), outputs(model)
    with dt.merged(model, "a"):
        dt.use(model, "a", "b")  # that is how it is: nothing is counted twice
        assert_close(model(X).detach(), want["both"], 100)
        dt.use(model, "a")
        assert_close(model(X).detach(), want["a"], 100)
        for refused in (
            lambda: dt.use(model),
            lambda: dt.use(model, a=0.5),
            lambda: dt.active(model, "b").__enter__(),
            lambda: dt.inject(model, dt.LoRA.on("0"), name="c"),
            lambda: dt.eject(model),
            lambda: dt.eject(model, "a"),
            lambda: dt.merge(model),
        ):
            with pytest.raises(dt.DeltaError, match=r"^0: 'a' stands merged|^0: a stands merged"):
                refused()
        twin = copy.deepcopy(model)
        assert torch.equal(twin(X), model(X)) and names(twin) == ["b"]
    assert torch.equal(model(X), want["a"])
    dt.use(model, "a", "b")  # a distributed wrapper is told what is off, and nothing else differs
    assert image(model) == before


@pytest.mark.parametrize("moved", [lambda m: m.to(torch.bfloat16), lambda m: m.double(), lambda m: m.half()])
def test_moved_to_another_dtype_inside_merged(moved: Callable[[nn.Module], nn.Module]) -> None:
    model = small()
    want = dict(moved(copy.deepcopy(model)).state_dict())
    objects = [id(p) for p in model.parameters()]
    with dt.merged(model), dt.merged(model, "a"):
        moved(model)
    assert all(torch.equal(p, want[n]) and p.dtype is want[n].dtype for n, p in model.state_dict().items())
    assert [id(p) for p in model.parameters()] == objects


def test_merged_and_threads() -> None:
    """Who wants what stands merged computes it, who wants another thing is told so; the weights are given back."""
    model = small()
    before, want = image(model), outputs(model)
    got: dict[str, Any] = {}

    @torch.no_grad()
    def work(form: str) -> None:
        try:
            with dt.active(model, **FORMS[form]):
                got[form] = model(X)
        except dt.DeltaError as error:
            got[form] = str(error)

    with dt.merged(model, "a"):
        for form in FORMS:
            thread = threading.Thread(target=work, args=(form,))
            thread.start()
            thread.join()
    for form in ("a", "both"):
        assert_close(got[form], want[form], 100)
    assert all("0: 'a' stands merged in the weights at strength 1" in got[form] for form in ("b", "half", "base"))
    assert image(model) == before and torch.equal(model(X), want["both"])


def test_threads_that_merge_at_once() -> None:
    """Each output is right, or refused by name; afterwards the weights are the original ones, to the bit."""
    model = small()
    before, want = image(model), outputs(model)
    told, right = [], []

    @torch.no_grad()
    def work(form: str) -> None:
        for _ in range(60):
            try:
                with dt.active(model, **FORMS[form]), dt.merged(model):
                    out = model(X)
            except dt.DeltaError as error:
                told.append(str(error))
                continue
            assert_close(out, want[form], 100)
            right.append(form)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, ["a", "b"]))
    assert right and all("merged" in each for each in told)
    assert image(model) == before and torch.equal(model(X), want["both"])


def test_saving_inside_merged_leaves_no_key_of_ours(tmp_path: Path) -> None:
    model = LLAMA.model()
    dt.inject(model, dt.LoRA.on(rank=2), dt.IA3.on())
    shaken(model)
    called = run(LLAMA, model)
    keys = set(LLAMA.model().state_dict())
    with dt.merged(model):
        assert set(model.state_dict()) == keys
        model.save_pretrained(tmp_path)  # type: ignore[operator]
    assert set(model.state_dict()) > keys
    again = type(model).from_pretrained(tmp_path).train()  # type: ignore[attr-defined]
    assert_close(run(LLAMA, again), called, LLAMA.reduction)
    assert len(hosts(model)) and not torch.equal(run(LLAMA, model), base_output(LLAMA))


def steps(model: nn.Module) -> Generator[Tensor]:
    with dt.active(model, "a"):
        while True:
            yield model(X)


def test_a_generator_that_another_thread_closes_leaves_its_block() -> None:
    model = small()
    both, stepping = model(X), steps(model)
    assert not torch.equal(next(stepping), both)
    closing = threading.Thread(target=stepping.close)
    closing.start()
    closing.join()
    assert torch.equal(model(X), both)


def test_an_async_generator_that_is_not_finished_leaves_its_block() -> None:
    model = small()
    both = model(X)

    async def stepping() -> AsyncIterator[Tensor]:
        with dt.active(model, "a"):
            while True:
                yield model(X)
                await asyncio.sleep(0)

    async def main() -> Tensor:
        async for h in stepping():
            assert not torch.equal(h, both)
            break
        gc.collect()
        await asyncio.sleep(0.01)  # asyncio closes the generator in a task of its own
        return model(X)

    assert torch.equal(asyncio.run(main()), both)


@pytest.mark.parametrize("when", ["switched on in a block", "switched off before the backward"])
def test_a_delta_that_was_live_in_the_forward_gets_its_gradient(when: str) -> None:
    model = small()
    if when == "switched on in a block":
        dt.use(model, "b")
        with dt.active(model, "a", "b"):
            model(X).square().sum().backward()
    else:
        out = model(X).square().sum()
        dt.use(model, "b")
        out.backward()
    assert all(p.grad is not None and p.grad.any() for _, p in dt.parameters(model))
    dt.eject(model, "a")
    assert "_ddp_params_and_buffers_to_ignore" not in vars(model)
