"""What is asked of the arguments, with errors that say which call, which shapes and what next; and autocast's casts.

Legend: x (..., K), W (N, K), b (N,), A (R, K), B (N, R).
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

NOTHING = nullcontext()


def check_layer(call: str, x: Tensor, W: Tensor, b: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """x, W and b as F.linear would take them: in autocast's dtype where it is on; they must agree."""
    if x.dim() < 1 or W.dim() != 2 or x.shape[-1] != W.shape[1] or (b is not None and b.shape != W.shape[:1]):
        bias = "none" if b is None else tuple(b.shape)
        raise ValueError(
            f"{call}: x {tuple(x.shape)}, W {tuple(W.shape)} and b {bias} do not fit; "
            "they are (..., K), (N, K) and (N,) or None"
        )
    if W.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{call}: W {tuple(W.shape)} requires a gradient, and these kernels hold it frozen; call "
            "W.requires_grad_(False), or use F.linear and deltatune.functional.low_rank"
        )
    if torch.is_autocast_enabled(x.device.type) and x.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, W, b = x.to(dtype), W.to(dtype), None if b is None else b.to(dtype)
    if not x.dtype.is_floating_point or W.dtype != x.dtype or (b is not None and b.dtype != x.dtype):
        raise ValueError(
            f"{call}: x is {x.dtype}, W {W.dtype}{'' if b is None else f', b {b.dtype}'}; a layer has one floating "
            "dtype: cast x to W's, or run under torch.autocast"
        )
    return x, W, b


def check_factors(call: str, W: Tensor, A: Tensor, B: Tensor) -> None:
    N, K = W.shape
    if A.dim() != 2 or B.dim() != 2 or A.shape[1] != K or B.shape[0] != N or A.shape[0] != B.shape[1]:
        raise ValueError(
            f"{call}: A {tuple(A.shape)} and B {tuple(B.shape)} do not fit W {(N, K)}; they are (R, {K}) and ({N}, R)"
        )
    if A.shape[0] == 0:
        raise ValueError(f"{call}: rank 0; without a low-rank term call F.linear")


def launching(x: Tensor) -> AbstractContextManager[None]:
    """A block that launches kernels on x's device, as Triton takes the current one, and without autocast.

    Our operands are cast already: autocast would round fp32 sums. Contexts are entered only where they change anything.
    """
    here = not x.is_cuda or x.get_device() == torch.cuda.current_device()
    return NOTHING if here and not torch.is_autocast_enabled(x.device.type) else elsewhere(x)


@contextmanager
def elsewhere(x: Tensor) -> Iterator[None]:
    with torch.cuda.device_of(x), torch.autocast(x.device.type, enabled=False):
        yield


def refuse_second_order() -> None:
    """Raise in a backward that is itself recorded; cheaper than once_differentiable, which every call would pay for."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            "these kernels' backward is not differentiable (create_graph=True); F.linear and "
            "deltatune.functional.low_rank are"
        )


def check_lengths(call: str, **lists: Sequence[object]) -> None:
    """One entry a layer or adapter in each, and at least one."""
    lengths = {name: len(given) for name, given in lists.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        counted = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(f"{call}: {counted} entries; give one of each for every layer or adapter")
