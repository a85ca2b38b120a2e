"""Parameters as matrices: what a module's forward reads itself holds one linear map, or a stack of them.

So it is with the fused experts of a mixture, nn.MultiheadAttention, recurrent layers and linear layers of own forward.
Legend: E matrices in a stack, N output and K input features.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from deltatune.core import DeltaError
from deltatune.hosts import features, linears, maps, modules, own_parameters
from deltatune.maps import children, original, plain


class Layout(NamedTuple):
    """How a parameter holds (N, K), or (E, N, K) where stack is E; shape: its own."""

    shape: tuple[int, ...]
    stack: int | None
    transposed: bool

    def matrices(self, p: Tensor) -> Tensor:
        """(N, K) or (E, N, K) of a parameter."""
        p = p if self.stack else p.flatten(1)
        return p.transpose(-1, -2) if self.transposed else p

    def parameter(self, W: Tensor) -> Tensor:
        """The inverse of `matrices`; one matrix may stand for a whole stack."""
        W = W.transpose(-1, -2) if self.transposed else W
        return W if self.stack else W.reshape(self.shape)


def parameter_of(host: nn.Module, name: str) -> nn.Parameter:
    """A parameter that the host reads: its own, or one of a module inside it. Raises DeltaError."""
    own = own_parameters(host).get(name)
    if own is None:
        try:
            own = host.get_parameter(name)
        except AttributeError:
            there = ", ".join(n for n, p in own_parameters(host).items() if p is not None) or "none"
            raise DeltaError(
                f"{original(host).__name__} has no parameter {name!r}; its own are {there}; name one of these, or one "
                "inside it by its path"
            ) from None
    if not plain(own):
        raise DeltaError(f"{name} of {original(host).__name__} is packed, no numbers to add to")
    return own


def layout(host: nn.Module, name: str) -> Layout:
    """The layout of a host's parameter of two dimensions or more. Raises DeltaError.

    Three dimensions are a stack, unless its matrices are smaller than it is high: then it is one matrix of its first
    dimension by the rest, as a convolution's kernel is. Which of a matrix's two sides is the output is told by
    `is_transposed` (transformers), else by how the stacks of one module fit each other, else (N, K) as in nn.Linear.
    """
    p = parameter_of(host, name)
    if p.dim() < 2:
        raise DeltaError(f"{name} of {original(host).__name__} has the shape {list(p.shape)}, which is no matrix")
    stacked = p.dim() == 3 and p.shape[0] < p.shape[1] + p.shape[2] and not hasattr(host, "kernel_size")
    if stacked:
        return Layout(tuple(p.shape), p.shape[0], reads_columns(host))
    table = isinstance(host, (nn.Embedding, nn.EmbeddingBag, _ConvTransposeNd))
    return Layout(tuple(p.shape), None, table and name == "weight")


def reads_columns(host: nn.Module) -> bool:
    """Whether a module's stacks lie as (E, K, N). What the first gives, or half of it, the last takes."""
    said = vars(host).get("is_transposed")
    stacks = [p.shape[1:] for p in own_parameters(host).values() if p is not None and p.dim() == 3]
    if isinstance(said, bool) or len(stacks) < 2:
        return bool(said)
    (a, b), (c, d) = stacks[0], stacks[-1]
    usual, turned = b == c and d in (a, a // 2), a == d and c in (b, b // 2)
    return turned and not usual


def bare(host: nn.Module) -> list[str]:
    """The matrices that the host itself reads; none where linear layers inside it hold them."""
    if any(m is not host for _, m in maps(host)):
        return []
    return [n for n, p in own_parameters(host).items() if p is not None and plain(p) and p.dim() > 1]


def routers(module: nn.Module) -> set[int]:
    """Ids of the linear layers below a module that have an output for each expert of a stack beside them."""
    found: set[int] = set()
    for _, parent in modules(module):
        counts = {layout(child, name).stack for child in children(parent) for name in experts(child)}
        if counts:
            found |= {id(m) for _, m in linears(parent) if features(m).out in counts}
    return found


def experts(host: nn.Module) -> list[str]:
    """The stacks of a module that counts experts, one matrix for each."""
    counts = {v for n, v in vars(host).items() if "expert" in n and type(v) is int}
    own = bare(host) if counts else []
    return [n for n in own if (stack := layout(host, n).stack) is not None and stack in counts]
