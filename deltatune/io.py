"""Saving and loading one delta: which tensors it has, what they belong to, and whether this is the base they change."""

from __future__ import annotations

import base64
import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from deltatune.core import BaseMismatch, DeltaError, DeltaModule, FormatError
from deltatune.deltafile import FORMAT, read, write
from deltatune.fingerprint import Entry, Held, alike, base_tensors, entries, hashed, held_by, offloaded, sketch, told
from deltatune.host import Record, deltas, deltas_of, hosts, record_of
from deltatune.hosts import extend, modules, unreachable
from deltatune.hyperparameters import checked
from deltatune.inject import check_called, check_name, eject, freeze_base, put_in, share_tied
from deltatune.methods import METHODS, Head, Statistics
from deltatune.plan import Plan, describe
from deltatune.structure import structure
from deltatune.swap import check_host
from deltatune.switching import known, refuse_merged


def fingerprint(model: nn.Module, besides: Held | None = None) -> dict[str, str]:
    """{"structure", "values", "dtypes"}: hashes of the base's paths and shapes, of all its bytes, and of its dtypes.

    Parameters and persistent buffers; a packed weight counts by its place alone. Deltas are not part of it, nor is what
    they hold in the place of the base's own: a Head's parameters, the rows of Rows. besides: more that is held so.
    """
    here = dict(modules(model))
    held = held_by((here[path], type(d), d.hparams()) for path, _, _, d in deltas(model)) | (besides or {})
    return told(entries(model, held))


SAMPLES = 16  # values of each parameter that entered a fingerprint of format 1


def first_fingerprint(model: nn.Module, held: Held) -> dict[str, str]:
    """What format 1 said of a base: hashes of its parameters' paths and shapes, and of sampled values as bf16."""
    structure, samples = [], []
    with torch.no_grad():
        for path, module in modules(model):
            for name, p in module._parameters.items():
                if p is not None and held.get(id(p), ()) is not None:
                    structure.append(f"{join(path, name)}{list(p.shape)}")
                    if rows := held.get(id(p)):
                        p = p.index_fill(0, torch.tensor(rows, device=p.device), 0)
                    step = max(1, p.numel() // SAMPLES) if p.is_floating_point() else 1
                    samples.append(p.reshape(-1)[: SAMPLES * step : step].to(torch.bfloat16).cpu())
    values = torch.cat(samples).view(torch.int16).numpy().tobytes() if samples else b""
    return {
        "structure": hashed(structure),
        "values": hashlib.sha256(values).hexdigest()[:32],
    }


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def site_keys(sites: list[str]) -> list[str]:
    """The key prefix of each site: its path, with #i from the second delta at that path on (##i where a module is
    called so)."""
    counts: dict[str, int] = {}
    keys: list[str] = []
    for path in sites:
        i = counts[path] = counts.get(path, -1) + 1
        marks = "#"
        while i and (f"{path}{marks}{i}" in sites or f"{path}{marks}{i}" in keys):
            marks += "#"
        keys.append(f"{path}{marks}{i}" if i else path)
    return keys


def tensors_of(sites: list[tuple[str, DeltaModule]]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by key, and for tensors that stand at several keys, key -> the first one."""
    tensors: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    for prefix, (_, delta) in zip(site_keys([p for p, _ in sites]), sites, strict=True):
        for name, t in values_of(delta).items():
            key = join(prefix, name)
            if id(t) in first:
                tied[key] = first[id(t)]
            else:
                first[id(t)] = key
                tensors[key] = t.detach()
    return tensors, tied


def values_of(delta: DeltaModule) -> dict[str, Tensor]:
    """A delta's tensors by name; those that accelerate keeps elsewhere between forwards, from there."""
    tensors = delta.state_dict(keep_vars=True)
    for name, t in tensors.items():
        if t.is_meta:
            at, _, last = name.rpartition(".")
            tensors[name] = offloaded(delta.get_submodule(at), last, t)
    return tensors


def save(model: nn.Module, path: str | os.PathLike[str], name: str = "default", compact: bool = False) -> int:
    """Write one delta to a file, atomically, and return its bytes. The old file stays if anything goes wrong.

    compact: tensors rounded to bf16, half the bytes. Raises NoMatch for an unknown name, FormatError for a
    tensor with NaN or infinity.
    """
    known(model, name)
    refuse_merged(model, "saving")
    record = record_of(model, name)
    sites = [(p, d) for p, _, _, d in deltas(model, name)]
    here = dict(modules(model))
    held = held_by((here[p], type(d), d.hparams()) for p, d in sites)
    base, trained = since(record, entries(model, held))
    tensors_here = base_tensors(model, held)
    learned = {path for path in trained if isinstance(tensors_here[path], nn.Parameter)}  # which a Head holds
    base = {path: entry for path, entry in base.items() if path not in learned}
    kept = {p: torch.empty_like(t, device="meta") if p in trained else t for p, t in tensors_here.items()}
    sums, _ = sketch(t for p, t in kept.items() if p not in learned)
    sites = [*whole(here, trained), *sites]
    tensors, tied = tensors_of(sites)
    for path_here, host in hosts(model):
        if deltas_of(host)._late:
            raise DeltaError(f"{path_here}: {name!r} has no values yet; run the materialised model once, then save")
    tensors = {k: t.cpu().contiguous() for k, t in tensors.items()}
    if compact:
        tensors = {k: t.to(torch.bfloat16) if t.is_floating_point() else t for k, t in tensors.items()}
    about: dict[str, Any] = {
        "format": FORMAT,
        "base": {**told(base), "sketch": base64.b85encode(sums.numpy().tobytes()).decode()},
        "sites": [{"path": p, "method": type(d).__name__, "hparams": d.hparams()} for p, d in sites],
        "tied": tied,
    }
    return write(Path(path), tensors, about)


def since(record: Record, now: dict[str, Entry]) -> tuple[dict[str, Entry], list[str]]:
    """The base that the file is for, and the parameters of it that changed since the injection, which it holds whole.

    The base is the one found at the injection. What was on the meta device then, or has another shape or dtype now, is
    taken as it is now.
    """
    base: dict[str, Entry] = {}
    trained = []
    for path, entry in now.items():
        then = record.base.get(path)
        known = then is not None and then.digest != "" and entry.digest != "" and then[:2] == entry[:2]
        if known and then != entry:
            trained.append(path)
            base[path] = cast(Entry, then)
        elif then is not None and entry.digest == "" and then.digest != "":
            base[path] = then
        else:
            base[path] = entry
    return base, trained


def whole(here: dict[str, nn.Module], trained: list[str]) -> list[tuple[str, DeltaModule]]:
    """Deltas that hold these parameters and buffers of the base as they are."""
    by_host: dict[str, list[str]] = {}
    for path in trained:
        at, _, name = path.rpartition(".")
        above = here.get(at.rpartition(".")[0])
        if isinstance(above, nn.MultiheadAttention) and at.endswith("out_proj"):
            at, name = at.rpartition(".")[0], f"out_proj.{name}"
        by_host.setdefault(at, []).append(name)
    if trained:
        warnings.warn(
            f"{len(trained)} tensors of the base changed since the injection, first {trained[0]}: they are saved whole",
            stacklevel=3,
        )
    deltas: list[tuple[str, DeltaModule]] = []
    shared: dict[Any, Any] = {}
    for at, names in by_host.items():
        moved = tuple(n for n in names if n in here[at]._buffers)
        learned = tuple(n for n in names if n not in moved)
        if moved:
            deltas.append((at, Statistics(here[at], only=moved)))
        if learned:
            deltas.append((at, Head(here[at], only=learned)))
            share_tied(here[at], deltas[-1][1], shared)
    return deltas


def load(
    model: nn.Module,
    path: str | os.PathLike[str],
    name: str = "default",
    methods: dict[str, type[DeltaModule]] | None = None,
    freeze: bool = True,
    example: Mapping[str, Any] | None = None,
) -> Plan:
    """Inject the delta of a file under this name. The model is changed only if everything fits.

    methods: class by name, by default the library's and every DeltaModule that this process defined. example: keyword
    arguments of one forward, from which the model's structure is learned, as in `inject`.
    Raises OSError (the file cannot be read), FormatError (its keys, shapes, dtypes, an unknown method), BaseMismatch
    (made on another base), DeltaError (the name is taken, or is no name).
    """
    about, tensors = read(path)
    table = {**DeltaModule.registry, **METHODS} if methods is None else methods
    extend(model)
    here = dict(modules(model))
    sites: list[tuple[str, nn.Module, DeltaModule]] = []
    shared: dict[Any, Any] = {}
    skipped, known_structure = unreachable(model), structure(model, example)
    if unknown := [s["method"] for s in about["sites"] if s["method"] not in table]:
        raise FormatError(f"{path}: unknown method {unknown[0]!r}; define it, or pass it in methods=")
    check_base(model, path, about, here, table)
    check_name(model, name)
    with torch.random.fork_rng():
        for site in about["sites"]:
            cls = table[site["method"]]
            host = here[site["path"]]
            check_host(site["path"], host, skipped)
            try:
                delta = cls(host, **checked(cls, site["hparams"]))  # type: ignore[arg-type]
            except (TypeError, DeltaError) as error:
                raise FormatError(f"{path}: {site['path']}: {site['method']}: {error}") from None
            check_called(site["path"], host, delta, known_structure)
            share_tied(host, delta, shared)
            sites.append((site["path"], host, delta))
    fill(path, sites, tensors, about["tied"])
    put_in(model, sites, name)
    try:
        if freeze:
            freeze_base(model)
    except Exception:
        eject(model, name)
        raise
    return describe(model, sites)


def fill(
    path: Any, sites: list[tuple[str, nn.Module, DeltaModule]], tensors: dict[str, Tensor], tied_to: dict[str, str]
) -> None:
    """Copy the file's tensors into the deltas. Raises FormatError where one is missing, surplus, or does not fit,
    BaseMismatch where two go into one."""
    wanted, tied = tensors_of([(p, d) for p, _, d in sites])
    apart = [
        k for k, first in tied.items() if {k, first} <= tensors.keys() and not torch.equal(tensors[k], tensors[first])
    ]
    if apart:
        raise BaseMismatch(
            f"{path} was made on a base whose weights are not tied, and holds one tensor for {apart[0]!r} and another "
            f"for {tied[apart[0]]!r}; untie them in this model first"
        )
    tensors = {**tensors, **{k: tensors[v] for k, v in tied_to.items() if k in wanted}}
    if missing := wanted.keys() - tensors.keys():
        raise FormatError(f"{path}: tensor {sorted(missing)[0]!r} is missing")
    if surplus := tensors.keys() - wanted.keys() - tied.keys():
        raise FormatError(f"{path}: tensor {sorted(surplus)[0]!r} belongs to no parameter of its site")
    if bare := [key for key, t in wanted.items() if t.is_meta]:
        raise DeltaError(f"{path}: {bare[0]} would be on the meta device; load before offloading")
    with torch.no_grad():
        for key, t in wanted.items():
            given = tensors[key]
            if given.shape != t.shape:
                raise FormatError(f"{path}: {key!r} has shape {list(given.shape)}, its site needs {list(t.shape)}")
            if given.dtype != t.dtype and not (given.is_floating_point() and t.is_floating_point()):
                raise FormatError(f"{path}: {key!r} has dtype {given.dtype}, its site needs {t.dtype}")
            t.copy_(given)


def check_base(
    model: nn.Module, path: Any, about: dict[str, Any], here: dict[str, nn.Module], table: dict[str, type[DeltaModule]]
) -> None:
    """Raise BaseMismatch, saying whether structure or values differ."""
    for site in about["sites"]:
        if site["path"] not in here:
            raise BaseMismatch(f"{path} changes {site['path']!r}, which this {type(model).__name__} does not have")
        host = here[site["path"]]
        away = any("_hf_hook" in m.__dict__ for m in host.modules())  # accelerate keeps the weights elsewhere
        if not away and any(p.is_meta for p in host.parameters()):
            raise DeltaError(f"{path}: this {type(model).__name__} is on the meta device; materialise it, then load")
    held = held_by((here[s["path"]], table[s["method"]], s["hparams"]) for s in about["sites"])
    theirs, tensors = about["base"], base_tensors(model, held)
    own = first_fingerprint(model, held) if about["format"] == 1 else told(entries(model, held))
    if own["structure"] != theirs["structure"]:
        raise BaseMismatch(
            f"{path} was made on a base with other parameters or shapes than this {type(model).__name__}"
        )
    if own["values"] == theirs["values"]:
        return
    if about["format"] > 1 and own["dtypes"] != theirs["dtypes"]:
        said = np.frombuffer(base64.b85decode(theirs["sketch"]), np.float32)
        if alike(torch.from_numpy(said.copy()), sketch(tensors.values())):
            return
    raise BaseMismatch(
        f"{path} was made on a base with the same shapes as this {type(model).__name__} but other weights; load "
        "the weights it was trained on"
    )
