"""The verbs that put deltas in and take them out: plan, inject, eject, freeze, verify."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from deltatune.core import DeltaError, DeltaModule, NoMatch, NotReached, Rule
from deltatune.fingerprint import entries, held_by
from deltatune.host import Deltas, Record, deltas, deltas_of, names, to_run
from deltatune.hosts import extend, modules, own_parameters, unreachable
from deltatune.hyperparameters import checked
from deltatune.maps import original
from deltatune.plan import Plan, describe
from deltatune.prompts import check_ids, ids_of
from deltatune.select import sites
from deltatune.sites import notes
from deltatune.strengths import forget
from deltatune.structure import Structure, structure
from deltatune.swap import attach, check_host, check_removable, close_fast_path, detach, hold_still, lend, runs
from deltatune.switching import active, known, refuse_merged
from deltatune.together import gather

# Whoever knows a package registers pairs of these: an opener is called with (model, host) for every attention site, a
# closer after eject; it undoes what the opener did where no need is left.
OPENERS: list[Callable[[nn.Module, nn.Module], None]] = []
CLOSERS: list[Callable[[nn.Module], None]] = []


def build(
    model: nn.Module, rules: tuple[Rule, ...], name: str, example: Mapping[str, Any] | None = None
) -> list[tuple[str, nn.Module, DeltaModule]]:
    """The deltas of all rules, made but not attached: either every one of them can be, or this raises."""
    if not rules:
        raise NoMatch("no rule given; say for example deltatune.LoRA.on(rank=8)")
    check_name(model, name)
    extend(model)
    built: list[tuple[str, nn.Module, DeltaModule]] = []
    shared: dict[Any, Any] = {}
    skipped, known = unreachable(model), structure(model, example)
    for rule in rules:
        for path, host, hparams in sites(model, rule):
            check_host(path, host, skipped)
            try:
                delta = rule.method(host, **checked(rule.method, hparams))  # type: ignore[arg-type]
            except DeltaError as error:
                raise type(error)(f"{path}: {error}") from None
            check_called(path, host, delta, known)
            share_tied(host, delta, shared)
            built.append((path, host, delta))
    return built


def check_called(path: str, host: nn.Module, delta: DeltaModule, known: Structure | None) -> None:
    """Raise where a delta stands around a forward that is never called, because others read the weights themselves."""
    why = None if known is None else known.unreachable().get(path)
    if not runs(host):
        why = f"{original(host).__name__} has no forward of its own: others read what it holds"
    if delta.site != "parameters" and why is not None:
        raise NotReached(
            f"{path}: {why}, so a {type(delta).__name__} around its forward would have no effect; choose a "
            f"method that changes parameters, Full.on({path!r}) or LoRA.on({path + '.weight'!r}), or another host"
        )


def check_name(model: nn.Module, name: str) -> None:
    """Raise where no delta can be injected under this name."""
    if not name or "." in name or name in dir(Deltas()):
        raise DeltaError(f"{name!r} cannot name a delta: it is empty, has a dot, or is an attribute of nn.ModuleDict")
    refuse_merged(model, "injecting")
    if name in names(model):
        raise DeltaError(f"a delta named {name!r} is injected already; eject it first, or choose another name")


def share_tied(host: nn.Module, delta: DeltaModule, shared: dict[Any, Any]) -> None:
    """A host parameter that stands at several places has one delta parameter of a kind, at all of them.

    Several that stand on one host are several: the first at each place is one, and so is the second.
    """
    for attribute, own in delta.tied_to(host).items():
        mine = cast(nn.Parameter, delta._parameters[attribute])
        delta._parameters[attribute] = shared.setdefault((type(delta), attribute, id(own), mine.shape), mine)
    if delta.site != "parameters" or not delta.pairs:
        return
    for name, own in own_parameters(host).items():
        attribute = name.replace(".", "_")
        if own is not None and attribute in delta._parameters:
            mine = cast(nn.Parameter, delta._parameters[attribute])
            on_host = shared.setdefault((type(delta), id(host), id(own)), [])
            on_host += [] if delta in on_host else [delta]
            delta._parameters[attribute] = shared.setdefault((type(delta), on_host.index(delta), id(own)), mine)
            if delta._parameters[attribute] is not mine:  # transformers saves what is listed so at one place
                delta._tied_weights_keys = getattr(delta, "_tied_weights_keys", {}) | {attribute: attribute}  # type: ignore


def plan(model: nn.Module, *rules: Rule, example: Mapping[str, Any] | None = None) -> Plan:
    """What `inject` would do: sites, shapes, parameters, bytes. Changes nothing, the random state included; raises as
    `inject` does. example: keyword arguments of one forward, from which usual sites are learned."""
    with torch.random.fork_rng(), torch.no_grad():
        built = build(model, rules, "planned", example)
        return describe(model, built, notes(model, rules, {path for path, _, _ in built}))


def inject(
    model: nn.Module,
    *rules: Rule,
    name: str = "default",
    freeze: bool = True,
    example: Mapping[str, Any] | None = None,
) -> Plan:
    """Put the rules' deltas into the model, in place, and switch them on. All of them or, with an error, none.

    freeze: everything but deltas stops requiring gradients. example: keyword arguments of one forward, from which
    usual sites are learned, and methods that start from data (Prefix, Prompt) start. Raises NoMatch, NotReached, or
    DeltaError naming the site.
    """
    built = build(model, rules, name, example)
    remarks = notes(model, rules, {path for path, _, _ in built})
    put_in(model, built, name)
    try:
        if example is not None and any(delta.primes for _, _, delta in built):
            prime(model, name, example)
        if freeze:
            freeze_base(model)
    except Exception:
        eject(model, name)
        raise
    return describe(model, built, remarks)


def put_in(model: nn.Module, built: list[tuple[str, nn.Module, DeltaModule]], name: str) -> None:
    """Attach built deltas and open what their sites need opened."""
    found = entries(model, held_by((host, type(d), d.hparams()) for _, host, d in built))
    record = Record(tuple((path, type(d).__name__) for path, _, d in built), found)
    for path, host, delta in built:
        if delta.site == "attention":
            for opener in OPENERS:
                opener(model, host)
        attach(host, name, delta)
        deltas_of(host)._records[name] = path, record
    lend(model)
    forget([deltas_of(host) for _, host, _ in built], name)
    gather(model)
    close_fast_path(model)


@torch.no_grad()
def prime(model: nn.Module, name: str, example: Mapping[str, Any]) -> None:
    """One forward of the example through the base, from which the deltas of this name start."""
    waiting = {d for _, _, _, d in deltas(model, name) if d.primes}
    mask = example.get("attention_mask")
    real = mask.bool() if isinstance(mask, Tensor) and mask.dim() == 2 else None
    reached = set(waiting)

    started: set[nn.Parameter] = set()  # one that stands at several places starts from the first call of any

    def start(delta: nn.Module, args: Any, kwargs: Any) -> Any:
        reached.discard(cast(DeltaModule, delta))
        base, *rest = args
        own = set(delta.parameters())
        if not own or not own <= started:
            started.update(own)
            cast(DeltaModule, delta).prime(base, real, *rest, **{k: v for k, v in kwargs.items() if k != "strength"})

    handles = [d.register_forward_pre_hook(start, with_kwargs=True) for d in waiting]
    # The example must see the base alone: a hook primes each delta, and the delta's own call is skipped.
    for d in waiting:
        d.forward = pass_through  # type: ignore[method-assign]
    training = model.training
    model.eval()
    try:
        with active(model, name):
            model(**example)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
        for d in waiting:
            del d.forward
    if reached:
        raise NotReached(
            f"{len(reached)} deltas of {name!r} were not reached by the example, first {first_path(model, reached)}"
        )


def pass_through(base: Callable[..., Any], *args: Any, strength: float = 1.0, **kwargs: Any) -> Any:
    return base(*args, **kwargs)


def first_path(model: nn.Module, some: set[DeltaModule]) -> str:
    return next(p for p, _, _, d in deltas(model) if d in some)


def freeze_base(model: nn.Module) -> None:
    """Stop gradients for every parameter that is not a delta's (`deltatune.freeze`), and hold the base's buffers still:
    frozen norms run with their stored statistics in training too, where no `Statistics` stands on them."""
    hold_still(model)
    ours = {id(p) for _, _, _, d in deltas(model) for p in d.parameters()}
    for p in model.parameters():
        if id(p) not in ours:
            p.requires_grad_(False)


def eject(model: nn.Module, name: str | None = None) -> None:
    """Take out the deltas of one name, or all: with the last, classes, keys and outputs are the original's again.

    `requires_grad` stays as freeze left it. Raises NoMatch for an unknown name.
    """
    known(model, name, whole=False)
    refuse_merged(model, "ejecting")
    check_removable(model)
    detach(model, *([name] if name else names(model)))
    close_fast_path(model)
    for closer in CLOSERS:
        closer(model)


def parameters(model: nn.Module, name: str | None = None) -> list[tuple[str, nn.Parameter]]:
    """(name, Parameter) of the deltas, as `model.named_parameters()` names them; a shared one once. Raises NoMatch."""
    known(model, name)
    ours = {id(p) for _, _, _, d in deltas(model, name) for p in d.parameters()}
    return [(n, p) for n, p in model.named_parameters() if id(p) in ours]


def verify(model: nn.Module, *args: Any, **kwargs: Any) -> None:
    """Run forward and backward; raise NotReached naming every live delta that was not reached or got no gradient.

    So it does where ids of a prompt are read elsewhere than in its table. Gradients that parameters hold stay, and so
    does the random state.
    """
    known(model, None)
    here = dict(modules(model))
    live = [(path, name, i, d) for path, name, i, d in deltas(model) if to_run(here[path])[name] != 0]
    if not live:
        raise NoMatch("no delta is live in this model: inject one, or switch one on with use()")
    check_ids(model, args, kwargs)
    reached: set[nn.Module] = set()
    handles = [d.register_forward_pre_hook(lambda m, _: reached.add(m)) for *_, d in live]
    try:
        with torch.random.fork_rng(), torch.enable_grad(), torch.compiler.set_stance("force_eager"):
            out = model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    held = {id(p) for d in reached for p in d.parameters()}  # a tied Δ stands at every use; one that runs will do
    lost = [
        f"{path} ({name}): {type(d).__name__} was never called"
        for path, name, _, d in live
        if d not in reached and not {id(p) for p in d.parameters()} <= held
    ]
    wanted = {
        f"{path} ({name}): {n}": p for path, name, _, d in live for n, p in d.named_parameters() if p.requires_grad
    }
    tensors = [t for t in tree_leaves(out) if isinstance(t, Tensor) and t.requires_grad]
    if wanted and tensors:
        with torch.enable_grad():
            total = torch.stack([t.float().square().sum() for t in tensors]).sum()
        gradients = torch.autograd.grad(total, list(wanted.values()), allow_unused=True)
        lost += [f"{n} got no gradient" for n, g in zip(wanted, gradients, strict=True) if g is None]
    elif wanted:
        lost.append("the output needs no gradient at all")
    if lost:
        raise NotReached("; ".join(lost))


def prompt_ids(model: nn.Module, name: str = "default") -> list[int]:
    """The reserved ids that stand for a prompt's rows; put them where the prompt belongs, with labels -100.

    Raises NoMatch where the delta is not there, or holds no prompt.
    """
    known(model, name)
    for path, _, _, d in deltas(model, name):
        d.fits(dict(modules(model))[path])
    ids = ids_of(model, name)
    if not ids:
        raise NoMatch(f"the delta {name!r} holds no prompt")
    return ids
