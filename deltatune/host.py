"""What a host carries: one child that holds its stacks of deltas, and nothing else that it could miss of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from torch import nn

from deltatune.core import DeltaError, DeltaModule, NoMatch
from deltatune.fingerprint import Entry
from deltatune.hosts import modules, stacks
from deltatune.maps import CHILD, original
from deltatune.strengths import Strengths, wanted

Live = list[tuple[DeltaModule, float]]


class Record(NamedTuple):
    """What one injection did: (path, method) of its sites in order, and the base that it found, from one root."""

    sites: tuple[tuple[str, str], ...]
    base: dict[str, Entry]

    def seen(self, then: str, now: str) -> Record:
        """The same from another root: from there, the module that was at path `then` is at path `now`."""
        below = then[: len(then) - len(now)] if f".{then}".endswith(f".{now}" if now else "") else ""
        above = now[: len(now) - len(then)] if not below and f".{now}".endswith(f".{then}" if then else "") else ""
        if now == "" and then:
            below = f"{then}."
        if then == "" and now:
            above = f"{now}."
        sites = [(above + p[len(below) :], m) for p, m in self.sites if f"{p}.".startswith(below)]
        base = {above + p[len(below) :]: e for p, e in self.base.items() if p.startswith(below)}
        return Record(tuple((p.rstrip("."), m) for p, m in sites), base)


class Deltas(nn.ModuleDict):
    """All that a swap adds to a host: stacks of deltas, by name a list with one delta a rule, and state beside them.

    _strengths: by name, where no block says otherwise (`strengths`); 0 is switched off. _merges: of each open
    `merge.merged`, the strengths at which deltas are in the host's weights; _swaps counts their comings and goings.
    _together: the `together.Together` of the hosts that read one tensor. _reads: hosts whose parameters this one reads
    while they do not run, so that those stand changed while it runs (_placed); _reader: the other way round.
    _late: (name, place) of deltas without values (`late`). _still: whether buffers are held. _records: by name, the
    host's path and the record of the injection.
    """

    def __init__(self) -> None:
        super().__init__()
        self._strengths: Strengths = {}
        self._merges: tuple[Strengths, ...] = ()
        self._swaps = 0
        self._still = False
        self._late: list[tuple[str, int]] = []
        self._together: Any = None
        self._reads: tuple[nn.Module, ...] = ()
        self._reader: tuple[nn.Module, ...] = ()
        self._placed = False
        self._records: dict[str, tuple[str, Record]] = {}

    def __getstate__(self) -> dict[str, Any]:
        """A copy has the strengths of who copies as its defaults; what is in the weights is no delta of it any more."""
        inside = merged_strengths(self)
        strengths = {n: s for n, s in wanted(self, self._strengths).items() if n not in inside}
        stacks = {n: stack for n, stack in self._modules.items() if n not in inside}
        return self.__dict__ | {"_strengths": strengths, "_modules": stacks, "_merges": (), "_swaps": 0}

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """While weights stand merged, a state dict is that of the plain model, but for what is live beside them."""
        if not self._merges:
            return super().state_dict(*args, **kwargs)
        inside, strengths = merged_strengths(self), wanted(self, self._strengths)
        plain = nn.ModuleDict()
        plain._modules = {n: m for n, m in self._modules.items() if n not in inside and strengths[n] != 0}
        return plain.state_dict(*args, **kwargs)


class Host(nn.Module):
    """What a swapped class is known by. All that it adds to an instance is one child, `Deltas`, under `hosts.CHILD`.

    What runs a host are functions over it: a method here would hide an attribute of the module that is the host.
    """

    def _get_name(self) -> str:
        return f"Delta({super()._get_name()})"


def deltas_of(host: nn.Module) -> Deltas:
    """What the swap added to this host."""
    return vars(host)["_modules"][CHILD]


def strengths_of(host: nn.Module) -> Strengths:
    """The strength of each name on a host, here and now; 0 where it is switched off."""
    own = deltas_of(host)
    return wanted(own, own._strengths)


def place_of(host: nn.Module) -> str:
    """How errors name a host: its path at the injection."""
    return next((path for path, _ in deltas_of(host)._records.values() if path), original(host).__name__)


def merged_strengths(own: Deltas) -> Strengths:
    """What stands merged in the host's weights, at which strength."""
    return {name: strength for each in own._merges for name, strength in each.items()}


def to_run(host: nn.Module) -> Strengths:
    """The strengths that are left to compute: those wanted, less what stands merged in the weights.

    Raises DeltaError where the weights hold what this thread or task does not want.
    """
    own = deltas_of(host)
    strengths = wanted(own, own._strengths)
    if not own._merges:
        return strengths
    inside = merged_strengths(own)
    for name, strength in inside.items():
        if strengths.get(name) != strength:
            raise DeltaError(
                f"{original(host).__name__}: {name!r} stands merged in the weights at strength {strength:g}, and "
                f"{strengths.get(name, 0.0):g} is wanted here; leave merged() first, or run in a model of its own"
            )
    if not in_order(host, strengths, inside, ()):
        raise DeltaError(f"{original(host).__name__}: a delta that is live lies under {list(inside)}, which is merged")
    return {name: 0.0 if name in inside else strength for name, strength in strengths.items()}


def in_order(host: nn.Module, strengths: Strengths, inside: Iterable[str], chosen: Iterable[str]) -> bool:
    """Whether of the live deltas those inside the weights lie lowest, the chosen ones next, and the others on top.

    Parameter deltas change the weights that all module deltas stand around, so they count as lower.
    """
    ranks = [
        0 if name in inside else 1 if name in chosen else 2
        for site in ("parameters", "module")
        for name, stack in stacks(host).items()
        for delta in stack
        if delta.site == site and strengths[name] != 0
    ]
    return ranks == sorted(ranks)


def live(host: nn.Module, strengths: Strengths | None = None) -> dict[str, Live]:
    """The live deltas by site, at these strengths or at those of here and now."""
    sites: dict[str, Live] = {"module": [], "parameters": [], "buffers": [], "attention": []}
    strengths = to_run(host) if strengths is None else strengths
    for name, stack in deltas_of(host)._modules.items():
        if strengths[name] != 0:
            for delta in stack:  # type: ignore[union-attr]
                sites[delta.site].append((delta, strengths[name]))
    return sites


def hosts(model: nn.Module) -> list[tuple[str, Host]]:
    """(path, host) of every module that carries deltas."""
    return [(p, m) for p, m in modules(model) if isinstance(m, Host)]


def deltas(model: nn.Module, name: str | None = None) -> list[tuple[str, str, int, DeltaModule]]:
    """(host path, delta's name, position in its stack, delta) of every delta, or of those of one name."""
    return [
        (path, n, i, delta)
        for path, host in hosts(model)
        for n, stack in stacks(host).items()
        if name is None or n == name
        for i, delta in enumerate(stack)
    ]


def names(model: nn.Module) -> list[str]:
    """The names of the injected deltas, in the order of their injection at the first host that has them."""
    return list(dict.fromkeys(n for _, host in hosts(model) for n in deltas_of(host)))


EXCUSED = "_ddp_params_and_buffers_to_ignore"  # which DistributedDataParallel looks for


def excuse(model: nn.Module) -> None:
    """Tell who distributes the model which deltas are switched off by default; no gradient comes for them.

    They still need one where a block switches them on, so `requires_grad` does not say it.
    """
    others = [n for n in vars(model).get(EXCUSED, ()) if f"{CHILD}." not in n]
    off = [
        f"{path}.{CHILD}.{name}.{parameter}".lstrip(".")
        for path, host in hosts(model)
        for name, stack in deltas_of(host).items()
        if deltas_of(host)._strengths[name] == 0
        for parameter, _ in stack.named_parameters(remove_duplicate=False)
    ]
    vars(model).pop(EXCUSED, None)
    if others or off:
        vars(model)[EXCUSED] = [*others, *off]


def record_of(model: nn.Module, name: str) -> Record:
    """The record of a delta's injection, with paths from this model.

    Raises DeltaError where a module that carried it is not there any more: what it had learned is gone with it.
    """
    here = hosts(model)
    for path, host in here:
        if name not in stacks(host):
            continue
        then, record = deltas_of(host)._records[name]
        record = record.seen(then, path)
        carried = Counter((p, type(d).__name__) for p, _, _, d in deltas(model, name))
        if lost := Counter(record.sites) - carried:
            at, method = next(iter(lost))
            raise DeltaError(
                f"{at}: the module that carried {method} of {name!r} was replaced after the injection, and what it had "
                f"learned is gone with it; eject {name!r}, then inject or load it into the model as it is now"
            )
        return record
    raise NoMatch(f"no delta named {name!r} is injected")
