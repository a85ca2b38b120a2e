"""A delta transforms a function: `delta(base, x)` is the changed `base(x)`.

A stack of deltas around a host is a term with two readings: *call* it (forward) or *fold* it (merge into weights).
Terms: `Frozen`, the host's own linear map; `Opaque`, any other host; `Stacked`, a delta around a term.

Legend: B batch, T tokens, K input features, N output features.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn


class DeltaError(Exception):
    """Base of every error that deltatune raises on purpose."""


class NoMatch(DeltaError):
    """A rule, name or path matched nothing."""


class NotFoldable(DeltaError):
    """A delta, or the host under it, has no closed form as plain weights."""


class NotReached(DeltaError):
    """A delta would not be, or was not, reached by the model's forward or backward."""


class BaseMismatch(DeltaError):
    """A saved delta belongs to another base model."""


class FormatError(DeltaError):
    """A file is not a well-formed delta file, or not one that this process can read."""


class Frozen(NamedTuple):
    """A host's own linear map, y = op(x, W, b); W (N, K), b (N,) or None.

    An Embedding is the linear map of one-hot rows: W (N, V) is its table transposed, `op` looks rows up. A convolution
    has a kernel for each channel, W (N, K / G, *k), and what else it is given (an output size) goes to `op`.
    """

    weight: Tensor
    bias: Tensor | None = None
    op: Callable[..., Tensor] = F.linear

    def __call__(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self.op(x, self.weight, self.bias, *args, **kwargs)

    def folded(self) -> Frozen:
        return self


class Opaque(NamedTuple):
    """Any other host: it can be called, not folded."""

    call: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(*args, **kwargs)

    def folded(self) -> Frozen:
        raise NotFoldable("the host is not a known linear map, so no delta on it can be merged into weights")


class Stacked(NamedTuple):
    """A delta, at its strength, around a base. The base is called exactly once (it may write a KV cache)."""

    delta: DeltaModule
    base: Frozen | Opaque | Stacked
    strength: float = 1.0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.strength == 0:
            return self.base(*args, **kwargs)
        if self.strength == 1:  # a delta that knows no strength still works at full strength
            return self.delta(self.base, *args, **kwargs)
        return self.delta(self.base, *args, strength=self.strength, **kwargs)

    def folded(self) -> Frozen:
        inner = self.base.folded()
        return inner if self.strength == 0 else self.delta.fold(inner, self.strength)


class Rule(NamedTuple):
    """Where a method goes and with which hyperparameters; made by `Method.on(...)`."""

    method: type[DeltaModule]
    where: str | Callable[[str, nn.Module], bool] | None
    hparams: dict[str, Any]

    def __str__(self) -> str:
        given = [] if self.where is None else [repr(self.where)]
        return f"{self.method.__name__}.on({', '.join(given + [f'{k}={v!r}' for k, v in self.hparams.items()])})"


class DeltaModule(nn.Module):
    """The one interface of all methods. Additive ones override `change`, others `forward`; `fold` where it exists.

    A subclass takes `host` (for sizes and device; it never keeps it) and keyword-only hyperparameters, each kept as
    an attribute of the same name. Defining a subclass registers it, so that `load` finds it by its class name.

    site: what `base` is. "module": the host's forward, x -> h. "attention": scaled_dot_product_attention as the host
    calls it, after position encoding and after the cache. "parameters", "buffers": the host's own, a dict by name.
    identity_at_init: the injected model computes exactly what it did before.
    everywhere: whether its usual sites are meant to be all linear maps, so that a plan says which are left out.
    primes: whether `prime` starts it from data, so that inject's `example` means something to it.
    weight_decay: whether decoupled weight decay makes sense for these parameters.
    pairs: at site "parameters", whether its parameters bear the names of those of the host that they change.
    """

    site: Literal["module", "attention", "parameters", "buffers"] = "module"
    identity_at_init: bool = True
    primes: ClassVar[bool] = False
    everywhere: ClassVar[bool] = False
    weight_decay: ClassVar[bool] = True
    pairs: ClassVar[bool] = True
    registry: ClassVar[dict[str, type[DeltaModule]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "prime" in vars(cls) and not cls.primes:
            raise TypeError(f"{cls.__name__} defines prime, which is not called unless it says primes = True")
        DeltaModule.registry[cls.__name__] = cls

    @classmethod
    def on(cls, where: str | Callable[[str, nn.Module], bool] | None = None, **hparams: Any) -> Rule:
        """A rule: this method at `where` (a glob over module paths, `|` between alternatives, or a predicate)."""
        known = keyword_only(cls)
        if unknown := set(hparams) - set(known):
            raise DeltaError(
                f"{cls.__name__} has no hyperparameter {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}"
            )
        return Rule(cls, where, hparams)

    @classmethod
    def usual(cls, model: nn.Module, hparams: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
        """The sites of a rule without `where`: (module path, hyperparameters for that site)."""
        raise DeltaError(f"{cls.__name__} has no usual sites: say where, {cls.__name__}.on('*.some_module')")

    @classmethod
    def parts(cls, host: nn.Module) -> list[dict[str, Any]]:
        """The deltas that a rule puts on a host, as hyperparameters of each: one, or one for each of its parameters."""
        return [{}]

    @classmethod
    def at(cls, parameter: str) -> dict[str, Any]:
        """The hyperparameters that make it change this one parameter of its host."""
        raise DeltaError(f"{cls.__name__} stands on modules, not on {parameter!r} alone: name the module that reads it")

    @classmethod
    def holds(cls, host: nn.Module, hparams: dict[str, Any]) -> dict[str, Sequence[int] | None]:
        """What it stores in the place of the host's own: rows by parameter, None for all. Not part of the base."""
        return {}

    def change(self, x: Tensor, h: Tensor) -> Tensor:
        """The additive change of the output: h becomes h + strength * change(x, h)."""
        raise NotImplementedError(f"{type(self).__name__} overrides neither change nor forward")

    def forward(self, base: Callable[..., Any], *args: Any, strength: float = 1.0, **kwargs: Any) -> Any:
        """The changed base(*args). args[0] is x, the base's first input; base is called exactly once."""
        h = base(*args, **kwargs)
        change = self.change(args[0], h)
        return added(h, (change if strength == 1 else strength * change).to(h.dtype))

    def fold(self, at: Frozen, strength: float = 1.0) -> Frozen:
        """The linear map `at` with this delta inside. Raises NotFoldable where there is no closed form."""
        raise NotFoldable(f"{type(self).__name__} has no closed form as weights; keep it injected")

    @classmethod
    def together(cls, x: Tensor, calls: Sequence[tuple[DeltaModule, Frozen, float]]) -> Sequence[Tensor] | None:
        """The outputs of several hosts that read one x, each with one (delta, base, strength); None: one by one."""
        return None

    def prime(self, base: Callable[..., Any], real: Tensor | None, *args: Any, **kwargs: Any) -> None:
        """Start from data: called once with what inject's `example` brings to the base; real (B, T) marks tokens."""

    def reads(self) -> tuple[str, ...]:
        """The host's parameters that it changes besides those that are the host's own: names below a child of it."""
        return ()

    def fits(self, host: nn.Module) -> None:
        """Called before each run; raises DeltaError where the host is no longer what this delta was made for."""

    def inactive(self, *args: Any) -> None:
        """Called with the host's arguments while this delta is switched off; may raise NotReached."""

    def tied_to(self, host: nn.Module) -> dict[str, nn.Parameter]:
        """Own parameters, by name, that stand wherever the host's given parameter stands, as one."""
        return {}

    def note(self) -> str:
        """A word for the plan's table, such as whether a bias existed before."""
        return ""

    def hparams(self) -> dict[str, Any]:
        """The keyword-only constructor arguments, as they stand."""
        return {n: getattr(self, n) for n in keyword_only(type(self))}

    def extra_repr(self) -> str:
        return ", ".join(f"{k}={v!r}" for k, v in self.hparams().items())


def added(h: Tensor, change: Tensor) -> Tensor:
    """h + change. Raises DeltaError where that has not the shape of h: the host gives other places than it takes."""
    out = h + change
    if out.shape != h.shape:
        raise DeltaError(
            f"the change has the shape {list(change.shape)}, but the host gives {list(h.shape)} for each input of its "
            "own: choose a host that gives a vector for each it takes, or a form that reads its output"
        )
    return out


@functools.cache
def keyword_only(cls: type[DeltaModule]) -> tuple[str, ...]:
    """The names of a method's hyperparameters: the keyword-only arguments of its constructor."""
    return tuple(n for n, p in inspect.signature(cls.__init__).parameters.items() if p.kind is p.KEYWORD_ONLY)
