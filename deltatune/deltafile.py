"""A delta's file: one safetensors file of tensors, and one sorted JSON value that says what they are and checks them.

Keys are `{module path}.{parameter}`, with `#i` behind the path from the second delta of one host on. The metadata
holds format version, the base's fingerprint, each site's method, hyperparameters and order, a checksum of every
tensor and one of itself. Loading looks methods up in a table; it never imports a path named in a file.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from threading import Thread
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse
from torch import Tensor

from deltatune.core import FormatError

FORMAT = 2
READS = (1, 2)
CHECKSUM = 16  # hexadecimal digits of a tensor's
DTYPES = {  # safetensors' names, in the order in which it lays tensors out
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
PARTS = {"base": dict, "sites": list, "tensors": dict, "tied": dict}  # what the metadata holds, by type
BASE = {1: {"structure": str, "values": str}, 2: {"structure": str, "values": str, "dtypes": str, "sketch": str}}
SITE = {"path": str, "method": str, "hparams": dict}


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def checksum(t: Tensor, data: memoryview | None = None) -> str:
    """The checksum covers dtype, shape and bytes. data: the bytes, where they are at hand."""
    digest = hashlib.sha256(f"{t.dtype}{list(t.shape)}".encode())
    digest.update(raw(t) if data is None else data)
    return digest.hexdigest()[:CHECKSUM]


def raw(t: Tensor) -> memoryview:
    """The bytes of a tensor, as they lie in memory."""
    return memoryview(t.detach().contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]


def finite(t: Tensor) -> bool:
    """Whether no value is NaN or infinite. A finite sum says so in one pass, a third of the time; an infinite one may
    be an overflow, so then every value is looked at."""
    return not t.is_floating_point() or math.isfinite(t.sum().item()) or bool(torch.isfinite(t).all())


def checked(tensors: dict[str, Tensor], data: dict[str, memoryview], path: Path) -> dict[str, str]:
    """The checksum of every tensor, given its bytes. Raises FormatError for NaN or infinity."""
    for key, t in tensors.items():
        if not finite(t):
            raise FormatError(f"{key} holds NaN or infinity, so the delta was not saved to {path}")
    return {key: checksum(t, data[key]) for key, t in tensors.items()}


def listed(tensors: dict[str, Tensor]) -> str:
    """What a safetensors header says of these tensors, whose data follow it in order."""
    entries, at = {}, 0
    for key, t in tensors.items():
        entries[key] = {"dtype": DTYPES[t.dtype], "shape": list(t.shape), "data_offsets": [at, at := at + t.nbytes]}
    return json.dumps(entries, separators=(",", ":"), ensure_ascii=False)


def header(entries: str, about: dict[str, Any], checksums: dict[str, str]) -> bytes:
    """A safetensors file up to its data: the length, and the JSON of the metadata and of the tensors' `entries`."""
    about = {**about, "tensors": checksums}
    about["checksum"] = hashlib.sha256(canonical(about).encode()).hexdigest()
    metadata = json.dumps({"__metadata__": {"deltatune": canonical(about)}}, separators=(",", ":"))
    text = (metadata if entries == "{}" else f"{metadata[:-1]},{entries[1:]}").encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write(path: Path, tensors: dict[str, Tensor], about: dict[str, Any]) -> int:
    """The delta in place of the file, or, on any error, the file as it was; its bytes.

    What safetensors' own `save_file` would write, byte for byte. But the checksums, which stand before the data, are
    computed while the data are written: their length is known.
    """
    for key, t in tensors.items():
        if t.dtype not in DTYPES:
            raise FormatError(
                f"{key!r} is {t.dtype}, which a delta's file cannot hold; there are: {', '.join(DTYPES.values())}"
            )
    ranks = {dtype: rank for rank, dtype in enumerate(DTYPES)}
    order = sorted(tensors, key=lambda key: (ranks[tensors[key].dtype], key))
    tensors = {key: tensors[key] for key in order}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb", buffering=0) as f, ThreadPoolExecutor(2) as beside:
            data = {key: raw(t) for key, t in tensors.items()}
            halves = [dict(list(tensors.items())[i::2]) for i in range(2)]
            sums = [beside.submit(checked, half, data, path) for half in halves]
            entries = listed(tensors)
            f.seek(len(header(entries, about, dict.fromkeys(tensors, "0" * CHECKSUM))))
            parts = list(data.values())
            for i in range(0, len(parts), 512):  # a call takes at most 1,024
                written(f, parts[i : i + 512])
            size = f.tell()
            checksums = sums[0].result() | sums[1].result()
            f.seek(0)
            written(f, [memoryview(header(entries, about, checksums))])
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        with let_go_later(path):
            os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return size


@contextmanager
def let_go_later(path: Path) -> Iterator[None]:
    """The old file, if there is one, is freed by a thread after the block: for 20 MB a third of the time of a save."""
    try:
        old = os.open(path, os.O_RDONLY)
    except OSError:  # none, or one that may not be read
        yield
        return
    try:
        yield
    finally:
        Thread(target=os.close, args=(old,)).start()


def written(f: FileIO, parts: list[memoryview]) -> None:
    """All of the parts; a full disk or a signal can cut a call short."""
    while parts:
        n = os.writev(f.fileno(), parts)
        while parts and n >= len(parts[0]):
            n -= len(parts.pop(0))
        if n:
            parts[0] = parts[0][n:]


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A delta file's metadata and tensors, every byte checked. Raises FormatError."""
    data = Path(path).read_bytes()
    try:
        tensors = parse(data)
        size = int.from_bytes(data[:8], "little")
        header = data[8 : 8 + size].decode().rstrip(" ")
        text = json.loads(header)["__metadata__"]["deltatune"]
    except (SafetensorError, UnicodeDecodeError, ValueError) as error:
        raise FormatError(f"{path} is not a whole safetensors file: {error}") from None
    except KeyError:
        raise FormatError(f"{path} is a safetensors file without deltatune's metadata") from None
    if not header.endswith("}"):
        raise FormatError(f"{path}: the header is damaged")
    try:
        about = json.loads(text)
        claimed = about.pop("checksum")
        if canonical({**about, "checksum": claimed}) != text:
            raise ValueError
        if hashlib.sha256(canonical(about).encode()).hexdigest() != claimed:
            raise ValueError
    except (ValueError, AttributeError, KeyError, TypeError):
        raise FormatError(f"{path}: the metadata is damaged: its checksum does not match") from None
    if (kind := about.get("format")) not in READS:
        raise FormatError(f"{path} has format {kind}; this version of deltatune reads {' and '.join(map(str, READS))}")
    if not (holds(about, PARTS) and holds(about["base"], BASE[kind]) and all(holds(s, SITE) for s in about["sites"])):
        raise FormatError(f"{path}: the metadata lacks a part that format {kind} has")
    if loose := [k for k, first in about["tied"].items() if str(first) not in tensors]:
        raise FormatError(f"{path}: {loose[0]!r} is tied to a tensor that the file does not hold")
    if missing := about["tensors"].keys() - tensors.keys():
        raise FormatError(f"{path}: tensor {sorted(missing)[0]!r} is missing")
    if surplus := tensors.keys() - about["tensors"].keys():
        raise FormatError(f"{path}: tensor {sorted(surplus)[0]!r} is not one that the metadata names")
    for key, t in tensors.items():
        if checksum(t) != about["tensors"][key]:
            raise FormatError(f"{path}: tensor {key!r} is damaged: its checksum does not match")
        if not finite(t):
            raise FormatError(f"{path}: tensor {key!r} holds NaN or infinity")
    return about, tensors


def holds(value: Any, parts: dict[str, type]) -> bool:
    """Whether this is a dict with these keys and kinds of values."""
    return isinstance(value, dict) and all(isinstance(value.get(k), kind) for k, kind in parts.items())
