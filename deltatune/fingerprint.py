"""Which base this is: a digest of every parameter and persistent buffer, and a sketch that survives another dtype.

digest: all bytes count. A tensor is read as rows of WIDTH bytes; each row is multiplied by COLUMNS columns of fixed
random numbers in −127…127, exactly, and the products are hashed by SHA-256. Bytes that change by d ≠ 0 leave one
product as it was for at most one value of a number in 255, whatever the others are, so a change that was not made to
fit these numbers escapes with probability 255⁻⁸ < 10⁻¹⁹; what is shorter than a row is hashed itself. Order counts.
One thread of an AVX-512 core takes twice the time that summing the bytes would: 0.05 s for SmolLM2-135M in bf16.

sketch: for one base that is fp32 here and bf16 or fp16 there, whose bytes have nothing in common. From every row of a
tensor DRAWN values at fixed random places with random signs, summed by BUCKET rows. Rounding every value by at most u
moves a sum by about u times the norm of its values; a row that was drawn anew moves it by a hundred times that.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from deltatune.core import DeltaModule
from deltatune.hosts import modules, own_parameters
from deltatune.still import own_buffers

WIDTH, COLUMNS = 4096, 8
DRAWN, BUCKET = 8, 64
DEVIATIONS = 8  # this many times the sum's rounding error, were every value off by u
ROUNDOFF = (2.0**-9, 2.0**-12)  # u of bf16 and fp16


class Entry(NamedTuple):
    """One tensor of the base. digest: "" where its values cannot be read (yet): on the meta device, or packed."""

    shape: tuple[int, ...]
    dtype: str
    digest: str


Held = dict[int, Sequence[int] | None]  # id of a base parameter -> the rows that a delta holds itself, None for all


def held_by(sites: Iterable[tuple[nn.Module, type[DeltaModule], dict[str, Any]]]) -> Held:
    """What deltas of these methods on these hosts store in the place of the base's own (`DeltaModule.holds`)."""
    held: Held = {}
    for host, method, hparams in sites:
        own = own_parameters(host)
        for name, rows in method.holds(host, hparams).items():
            before = held.get(id(own.get(name)), ())
            held[id(own.get(name))] = None if rows is None or before is None else (*before, *rows)
    return held


def base_tensors(model: nn.Module, held: Held) -> dict[str, Tensor]:
    """Every parameter and persistent buffer of the model by path, without deltas and what these hold in its place; a
    tied one at each of its places."""
    tensors: dict[str, Tensor] = {}
    changed: dict[int, Tensor] = {}
    for path, module in modules(model):
        for name, t in (module._parameters | own_buffers(module)).items():
            rows = held.get(id(t), ())
            if t is None or rows is None:
                continue
            there = offloaded(module, name, t)
            if rows and there.device.type != "meta":
                if id(t) not in changed:
                    changed[id(t)] = there.detach().index_fill(0, torch.tensor(rows, device=there.device), 0)
                there = changed[id(t)]
            tensors[f"{path}.{name}" if path else name] = there
    return tensors


def offloaded(module: nn.Module, name: str, t: Tensor) -> Tensor:
    """The tensor, or what accelerate keeps elsewhere between forwards and puts in its place."""
    away = getattr(module.__dict__.get("_hf_hook"), "weights_map", None)
    return t if t.device.type != "meta" or away is None else away[name]


def entries(model: nn.Module, held: Held) -> dict[str, Entry]:
    """The base as it is now, by path. A packed weight counts by its place alone: its shape and bytes are its
    quantiser's, who may lay them out anew."""
    known: dict[int, Entry] = {}
    tensors = base_tensors(model, held)
    with torch.no_grad():
        for t in tensors.values():
            if id(t) not in known:
                known[id(t)] = entry(t)
    return {path: known[id(t)] for path, t in tensors.items()}


def entry(t: Tensor) -> Entry:
    if not readable(t):
        return Entry((), type(t).__name__, "")
    return Entry(tuple(t.shape), str(t.dtype), "" if t.device.type == "meta" else digest(t))


def dense(t: Tensor) -> bool:
    """Whether rounding moves a tensor's values by little each."""
    return t.is_floating_point() and t.layout is torch.strided


def readable(t: Tensor) -> bool:
    """Whether a tensor's numbers are its values, and its bytes stay as they are."""
    return type(t) in (Tensor, nn.Parameter)


@functools.cache
def columns(device: str) -> Tensor:
    """(WIDTH, COLUMNS) fixed random numbers, those of numpy's Philox counter, which no version changes."""
    drawn = np.random.Generator(np.random.Philox(14)).bytes(WIDTH * COLUMNS)
    return torch.frombuffer(bytearray(drawn), dtype=torch.int8).clamp(min=-127).view(WIDTH, COLUMNS).to(device)


def parts(t: Tensor) -> tuple[Tensor, ...]:
    """What a sparse tensor consists of."""
    if t.layout is torch.sparse_coo:
        t = t.coalesce()
        return t.indices(), t.values()
    if t.layout in (torch.sparse_csr, torch.sparse_bsr):
        return t.crow_indices(), t.col_indices(), t.values()
    return t.ccol_indices(), t.row_indices(), t.values()


def digest(t: Tensor) -> str:
    """16 hexadecimal digits for all bytes of a tensor, the same on every device."""
    if t.layout is not torch.strided:
        return hashed(digest(part) for part in parts(t.detach()))[:16]
    t = t.resolve_conj().resolve_neg()
    data = t.detach().contiguous().reshape(-1).view(torch.uint8).view(torch.int8)
    rows = len(data) // WIDTH
    if data.device.type != "cpu" and not (data.is_cuda and rows > 16):  # cuBLAS multiplies no fewer rows
        return digest(t.cpu())
    whole = hashlib.sha256(data[rows * WIDTH :].cpu().numpy().tobytes())
    if rows:
        products = torch._int_mm(data[: rows * WIDTH].view(rows, WIDTH), columns(str(data.device)))  # type: ignore[attr-defined]
        whole.update(products.cpu().numpy().tobytes())
    return whole.hexdigest()[:16]


def hashed(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:32]


def told(base: dict[str, Entry]) -> dict[str, str]:
    """{"structure", "values", "dtypes"} of a base: hashes of paths with shapes, of digests, and of dtypes."""
    packed = {path: "" if e.shape or e.digest else e.dtype for path, e in base.items()}
    return {
        "structure": hashed(f"{path}{list(e.shape)}{packed[path]}" for path, e in base.items()),
        "values": hashed(f"{path} {e.digest}" for path, e in base.items()),
        "dtypes": hashed(f"{path} {e.dtype}" for path, e in base.items()),
    }


def sketch(tensors: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """By bucket of rows of every floating tensor in turn: the signed sum of the values drawn, and their norm."""
    with torch.no_grad():
        parts = [drawn(t) for t in tensors if readable(t) and dense(t) and t.numel()]
    sums, norms = zip(*parts, strict=True) if parts else ((torch.zeros(0),), (torch.zeros(0),))
    return torch.cat(sums), torch.cat(norms)


def drawn(t: Tensor) -> tuple[Tensor, Tensor]:
    """(sums, norms) of one tensor, fp32 on the CPU; NaN on the meta device."""
    rows = t.detach().reshape(-1, t.shape[-1] if t.dim() > 1 else 1)
    if t.device.type == "meta":
        nothing = torch.full((-(-len(rows) // BUCKET),), math.nan)
        return nothing, nothing
    places, signs = draws(*rows.shape)
    values = rows.gather(1, places.to(rows.device)).float().cpu()
    pad = (0, 0, 0, -len(rows) % BUCKET)
    signed, square = (
        nn.functional.pad(v, pad).view(-1, BUCKET * v.shape[1]).sum(1) for v in (values * signs, values**2)
    )
    return signed, square.sqrt()


@functools.lru_cache(32)
def draws(rows: int, width: int) -> tuple[Tensor, Tensor]:
    """(rows, DRAWN, or fewer where a row is shorter) fixed places and signs."""
    numbers = np.random.Generator(np.random.Philox(15)).integers(0, 2 * width, (rows, min(DRAWN, width)))
    return torch.from_numpy(numbers // 2), torch.from_numpy(numbers % 2 * 2 - 1).float()


def alike(theirs: Tensor, mine: tuple[Tensor, Tensor]) -> bool:
    """Whether a sketch is that of this base in another dtype. A place that is not known (NaN) says nothing."""
    sums, norms = mine
    if len(theirs) != len(sums):
        return False
    allowed = DEVIATIONS * (sum(ROUNDOFF) * norms + math.sqrt(BUCKET * DRAWN) * 2.0**-25)  # fp16's steps end at 2⁻²⁴
    return not bool(((theirs - sums).abs() > allowed).any())
