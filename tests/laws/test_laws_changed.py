"""A host that was changed after the injection gets the right result, or a refusal that names it, from every verb."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrizations import weight_norm

import deltatune as dt
from deltatune.host import hosts, names
from tests.laws import image
from tests.support.cases import assert_close, run, shaken
from tests.support.hosts import VOCABULARY, Llama

pytestmark = pytest.mark.law
LLAMA = Llama()
X = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4))


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def patched(host: nn.Module) -> None:
    before = host.forward
    host.forward = lambda z: 2 * before(z)  # type: ignore[method-assign]


def twice(host: nn.Module) -> None:
    patched(host)
    patched(host)


def hooked(host: nn.Module) -> None:
    host.register_forward_hook(lambda module, args, out: 2 * out)


def reloaded(host: nn.Module) -> None:
    host.load_state_dict({k: 2 * v for k, v in host.state_dict().items()})


def assigned(host: nn.Module) -> None:
    host.weight = nn.Parameter(2 * host.weight.detach(), requires_grad=False)  # type: ignore[operator]


CHANGES: dict[str, Callable[[nn.Module], Any]] = {
    "patched": patched,
    "patched twice": twice,
    "hooked": hooked,
    "reloaded": reloaded,
    "assigned": assigned,
    "parametrised": lambda host: parametrize.register_parametrization(host, "weight", Doubled()),
    "weight norm": lambda host: weight_norm(host),
    "pruned": lambda host: prune.l1_unstructured(host, "weight", 3),
    "moved": lambda host: host.double().float(),
    "compiled": lambda host: host.compile(backend="eager"),
    "in eval": lambda host: host.eval(),
    "unfrozen": lambda host: host.requires_grad_(True),
}
METHODS: dict[str, Callable[[], dt.Rule]] = {
    "LoRA": lambda: dt.LoRA.on("0|2", rank=2),
    "DoRA": lambda: dt.DoRA.on("0|2", rank=2),
    "IA3": lambda: dt.IA3.on("0|2"),
    "BitFit": lambda: dt.BitFit.on("0|2"),
    "Full": lambda: dt.Full.on("0|2", only=("bias",)),
    "Adapter": lambda: dt.Adapter.on("0|2", width=2),
}


@contextmanager
def told(path: str) -> Iterator[list[str]]:
    """Nothing is raised inside, or an error that names the host; it is in the list then."""
    refused: list[str] = []
    try:
        yield refused
    except dt.DeltaError as error:
        refused.append(str(error))
    assert all(each.startswith((f"{path}: ", f"{path}.")) for each in refused)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", CHANGES)
def test_every_verb_after_a_change(method: str, change: str, tmp_path: Path) -> None:
    """Two models, one changed before the injection would be the yardstick; here: what the model gave stays consistent.

    The changed model computes with its deltas; switched off it is the changed base; merging computes the same or names
    the host; eject leaves what the change alone makes of the base.
    """
    torch._dynamo.reset()
    model, alone = small(), small()
    dt.inject(model, METHODS[method]())
    shaken(model)
    CHANGES[change](model[0])
    CHANGES[change](alone[0])
    base, called = alone(X).detach(), model(X).detach()
    dt.verify(model, X)
    with dt.active(model):
        assert torch.allclose(model(X), base, atol=1e-5)
    with told("0"), dt.merged(model):
        assert torch.allclose(model(X), called, atol=1e-5)
    assert torch.equal(model(X), called)
    with told("0") as refused:
        dt.eject(model)
    if refused:
        assert torch.equal(model(X), called)
        return
    assert not hosts(model) and torch.allclose(model(X), base, atol=1e-5)


@pytest.mark.parametrize("change", ["patched", "parametrised", "weight norm"])
def test_merging_for_good_after_a_change(change: str) -> None:
    model = small()
    dt.inject(model, dt.LoRA.on("0|2", rank=2))
    shaken(model)
    CHANGES[change](model[0])
    called, before = model(X).detach(), image(model)
    with told("0") as refused:
        dt.merge(model)
    assert not refused or image(model) == before
    assert torch.allclose(model(X), called, atol=1e-5)


VERBS: dict[str, Callable[[nn.Module, Path], Any]] = {
    "save": lambda m, path: dt.save(m, path),
    "verify": lambda m, path: dt.verify(m, **LLAMA.batch()),
    "merge": lambda m, path: dt.merge(m),
    "merged": lambda m, path: dt.merged(m).__enter__(),
    "use": lambda m, path: dt.use(m, "default"),
    "active": lambda m, path: dt.active(m, default=0.5).__enter__(),
    "parameters": lambda m, path: dt.parameters(m),
}


def replaced(model: nn.Module, path: str) -> None:
    at, _, name = path.rpartition(".")
    parent = model.get_submodule(at)
    setattr(parent, name, copy.deepcopy(LLAMA.model().get_submodule(path)))


LOST: dict[str, Callable[[nn.Module], Any]] = {
    "resized": lambda m: m.resize_token_embeddings(VOCABULARY + 4, mean_resizing=False),
    "replaced": lambda m: replaced(m, "lm_head"),
    "deleted": lambda m: setattr(m, "lm_head", nn.Identity()),
}


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("lost", LOST)
def test_a_delta_that_went_with_its_host_is_reported(lost: str, verb: str, tmp_path: Path) -> None:
    model = LLAMA.model()
    dt.inject(model, dt.LoRA.on(rank=2), dt.LoRA.on("lm_head", rank=2))
    LOST[lost](model)
    with pytest.raises(dt.DeltaError, match=r"^lm_head: the module that carried LoRA of 'default' was replaced"):
        VERBS[verb](model, tmp_path / "d")
    dt.eject(model)
    assert not hosts(model) and not names(model)


def test_new_tokens_are_no_prompt(tmp_path: Path) -> None:
    """A table that grew takes the ids that a prompt had: told, never answered with the prompt's rows."""
    model = LLAMA.model()
    dt.inject(model, dt.Prompt.on(length=3))
    shaken(model)
    rows = dict(dt.parameters(model))
    model.resize_token_embeddings(VOCABULARY + 2, mean_resizing=False)  # type: ignore[operator]
    ids = torch.tensor([[5, VOCABULARY, 6]])
    for refused in (
        lambda: model(input_ids=ids),
        lambda: dt.prompt_ids(model),
        lambda: dt.verify(model, input_ids=ids),
    ):
        with pytest.raises(dt.DeltaError, match=f"the vocabulary grew to {VOCABULARY + 2} ids"):
            refused()
    dt.save(model, tmp_path / "d")
    dt.eject(model)
    dt.load(model, tmp_path / "d")
    assert dt.prompt_ids(model) == [VOCABULARY + 2 + i for i in range(3)]
    assert torch.equal(next(iter(dict(dt.parameters(model)).values())), next(iter(rows.values())))
    want = model.get_input_embeddings()(ids)  # type: ignore[operator]
    assert torch.equal(want[0, 1], model.get_input_embeddings().weight[VOCABULARY])  # type: ignore[operator]


def test_weights_that_are_tied_later() -> None:
    model = LLAMA.model()
    dt.inject(model, dt.LoRA.on("lm_head", rank=2))
    shaken(model)
    model.lm_head.weight = model.model.embed_tokens.weight  # type: ignore[union-attr]
    called = run(LLAMA, model)
    with pytest.raises(dt.NotFoldable, match=r"^lm_head\.weight is tied to another module"):
        dt.merge(model)
    assert torch.equal(run(LLAMA, model), called)


@pytest.mark.parametrize("tied", [True, False])
def test_full_and_head_go_through_save_pretrained(tied: bool, tmp_path: Path) -> None:
    class Tied(Llama):
        def build(self) -> nn.Module:
            model = super().build()
            model.config.tie_word_embeddings = tied  # type: ignore[union-attr]
            model.tie_weights()  # type: ignore[operator]
            return model

    host = Tied()
    for i, rule in enumerate((dt.Full.on(), dt.Head.on("model.embed_tokens|lm_head"))):
        model = host.model()
        dt.inject(model, rule)
        shaken(model)
        called = run(host, model)
        model.save_pretrained(tmp_path / f"out{i}")  # type: ignore[operator]
        with dt.merged(model):
            model.save_pretrained(tmp_path / f"in{i}")  # type: ignore[operator]
        again = transformers.LlamaForCausalLM.from_pretrained(tmp_path / f"in{i}").train()
        assert_close(run(host, again), called, host.reduction)


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "bare": lambda m: m,
    "compiled": lambda m: torch.compile(m, backend="eager"),  # type: ignore[return-value]
    "in parallel": lambda m: nn.DataParallel(m),
    "both": lambda m: torch.compile(nn.DataParallel(m), backend="eager"),  # type: ignore[return-value]
}


def compiled_inside(model: nn.Module) -> nn.Module:
    model[0] = torch.compile(model[0], backend="eager")  # type: ignore[operator, assignment]
    return model


WRAPPERS["inside"] = compiled_inside


@pytest.mark.parametrize("other", WRAPPERS)
@pytest.mark.parametrize("one", WRAPPERS)
def test_a_wrapped_model_has_the_names_of_the_bare_one(one: str, other: str, tmp_path: Path) -> None:
    torch._dynamo.reset()
    model = small()
    dt.inject(model, dt.LoRA.on("0|2", rank=2))
    shaken(model)
    called = model(X)
    dt.save(WRAPPERS[one](model), tmp_path / "d")
    fresh = WRAPPERS[other](small())
    assert [r.path for r in dt.load(fresh, tmp_path / "d").rows] == ["0", "2"]
    assert torch.allclose(fresh(X), called, atol=1e-6)
    dt.verify(fresh, X)
    dt.save(fresh, tmp_path / "e")
    assert (tmp_path / "d").read_bytes() == (tmp_path / "e").read_bytes()


def test_base_parameters_trained_by_hand_are_saved_whole(tmp_path: Path) -> None:
    model = LLAMA.model()
    dt.inject(model, dt.LoRA.on(rank=2))
    shaken(model)
    for name in ("model.norm.weight", "model.layers.0.mlp.up_proj.weight"):
        model.get_parameter(name).requires_grad_(True)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    LLAMA.run(model, LLAMA.batch()).square().mean().backward()
    optimizer.step()
    want = run(LLAMA, model)
    with pytest.warns(UserWarning, match=r"2 tensors of the base changed .* first model\.\S+: they are saved whole"):
        dt.save(model, tmp_path / "d")
    fresh = LLAMA.model()
    dt.load(fresh, tmp_path / "d")
    assert_close(run(LLAMA, fresh), want, LLAMA.reduction)
    dt.save(fresh, tmp_path / "e")
    dt.eject(fresh)
    assert torch.equal(run(LLAMA, fresh), run(LLAMA, LLAMA.model()))


def test_verify_and_load_leave_the_random_state(tmp_path: Path) -> None:
    model = small()
    dt.inject(model, dt.LoRA.on("0|2", dropout=0.5), dt.Adapter.on("0"))
    shaken(model)
    dt.save(model, tmp_path / "d")
    before = torch.get_rng_state()
    dt.verify(model.train(), X)
    dt.load(small_again(), tmp_path / "d")
    assert torch.equal(torch.get_rng_state(), before)


def small_again() -> nn.Module:
    with torch.random.fork_rng():
        return small()
