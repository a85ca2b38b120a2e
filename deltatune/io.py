"""Saving and loading one delta: which tensors it has, what they belong to, and whether this is the base they change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deltatune.core import BaseMismatch, DeltaError, DeltaModule, FormatError
from deltatune.deltafile import FORMAT, read, write
from deltatune.host import deltas
from deltatune.hosts import extend, modules, own_parameters, unreachable
from deltatune.inject import check_called, check_name, freeze_base, known, put_in, share_tied
from deltatune.methods import METHODS
from deltatune.plan import Plan, describe
from deltatune.structure import structure
from deltatune.swap import check_host

SAMPLES = 16  # values of each parameter that enter the fingerprint


Held = dict[int, Sequence[int] | None]  # id of a base parameter -> the rows that a delta holds itself, None for all


def held_by(model: nn.Module, sites: Iterable[tuple[str, type[DeltaModule], dict[str, Any]]]) -> Held:
    """What deltas of these methods at these paths store in the place of the base's own (`DeltaModule.holds`)."""
    held: Held = {}
    for path, method, hparams in sites:
        host = model.get_submodule(path)
        own = own_parameters(host)
        for name, rows in method.holds(host, hparams).items():
            before = held.get(id(own.get(name)), ())
            held[id(own.get(name))] = None if rows is None or before is None else (*before, *rows)
    return held


def fingerprint(model: nn.Module, besides: Held | None = None) -> dict[str, str]:
    """{"structure", "values"}: hashes of the base's parameter paths and shapes, and of sampled values as bf16.

    So one base in fp32 and in bf16 has one fingerprint. Deltas are not part of it, nor is what they hold in the place
    of the base's own: a Head's parameters, the rows of Rows. besides: more of what is held so, to be left out.
    """
    held = held_by(model, ((path, type(d), d.hparams()) for path, _, _, d in deltas(model))) | (besides or {})
    structure, samples = [], []
    with torch.no_grad():
        for path, module in modules(model):
            for name, p in module._parameters.items():
                full = join(path, name)
                if p is not None and held.get(id(p), ()) is not None:
                    structure.append(f"{full}{list(p.shape)}")
                    if rows := held.get(id(p)):
                        p = p.index_fill(0, torch.tensor(rows, device=p.device), 0)
                    step = max(1, p.numel() // SAMPLES) if p.is_floating_point() else 1
                    samples.append(p.reshape(-1)[: SAMPLES * step : step].to(torch.bfloat16).cpu())
    values = torch.cat(samples).view(torch.int16).numpy().tobytes() if samples else b""
    return {
        "structure": hashlib.sha256("\n".join(structure).encode()).hexdigest()[:32],
        "values": hashlib.sha256(values).hexdigest()[:32],
    }


def join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def site_keys(sites: list[str]) -> list[str]:
    """The key prefix of each site: its path, with #i from the second delta at that path on."""
    counts: dict[str, int] = {}
    keys = []
    for path in sites:
        i = counts[path] = counts.get(path, -1) + 1
        keys.append(f"{path}#{i}" if i else path)
    return keys


def tensors_of(sites: list[tuple[str, DeltaModule]]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by key, and for tensors that stand at several keys, key -> the first one."""
    tensors: dict[str, Tensor] = {}
    first: dict[int, str] = {}
    tied: dict[str, str] = {}
    for prefix, (_, delta) in zip(site_keys([p for p, _ in sites]), sites, strict=True):
        for name, t in delta.state_dict(keep_vars=True).items():
            key = join(prefix, name)
            if id(t) in first:
                tied[key] = first[id(t)]
            else:
                first[id(t)] = key
                tensors[key] = t.detach()
    return tensors, tied


def save(model: nn.Module, path: str | os.PathLike[str], name: str = "default", compact: bool = False) -> int:
    """Write one delta to a file, atomically, and return its bytes. The old file stays if anything goes wrong.

    compact: tensors rounded to bf16, half the bytes. Raises NoMatch for an unknown name, FormatError for a
    tensor with NaN or infinity.
    """
    known(model, name)
    sites = [(p, d) for p, _, _, d in deltas(model, name)]
    tensors, tied = tensors_of(sites)
    tensors = {k: t.cpu().contiguous() for k, t in tensors.items()}
    if compact:
        tensors = {k: t.to(torch.bfloat16) if t.is_floating_point() else t for k, t in tensors.items()}
    about: dict[str, Any] = {
        "format": FORMAT,
        "base": fingerprint(model),
        "sites": [{"path": p, "method": type(d).__name__, "hparams": d.hparams()} for p, d in sites],
        "tied": tied,
    }
    return write(Path(path), tensors, about)


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
    shared: dict[Any, nn.Parameter] = {}
    skipped, known_structure = unreachable(model), structure(model, example)
    if unknown := [s["method"] for s in about["sites"] if s["method"] not in table]:
        raise FormatError(f"{path}: unknown method {unknown[0]!r}; define it, or pass it in methods=")
    check_base(model, path, about, here, table)
    check_name(model, name)
    for site in about["sites"]:
        cls = table[site["method"]]
        host = here[site["path"]]
        check_host(site["path"], host, skipped)
        try:
            delta = cls(host, **{k: tuple(v) if isinstance(v, list) else v for k, v in site["hparams"].items()})  # type: ignore[arg-type]
        except (TypeError, DeltaError) as error:
            raise FormatError(f"{path}: {site['path']}: {site['method']}: {error}") from None
        check_called(site["path"], delta, known_structure)
        share_tied(host, delta, shared)
        sites.append((site["path"], host, delta))
    wanted, tied = tensors_of([(p, d) for p, _, d in sites])
    tensors = {**tensors, **{k: tensors[v] for k, v in about["tied"].items() if k in wanted}}
    if missing := wanted.keys() - tensors.keys():
        raise FormatError(f"{path}: tensor {sorted(missing)[0]!r} is missing")
    if surplus := tensors.keys() - wanted.keys() - tied.keys():
        raise FormatError(f"{path}: tensor {sorted(surplus)[0]!r} belongs to no parameter of its site")
    with torch.no_grad():
        for key, t in wanted.items():
            given = tensors[key]
            if given.shape != t.shape:
                raise FormatError(f"{path}: {key!r} has shape {list(given.shape)}, its site needs {list(t.shape)}")
            if given.dtype != t.dtype and not (given.is_floating_point() and t.is_floating_point()):
                raise FormatError(f"{path}: {key!r} has dtype {given.dtype}, its site needs {t.dtype}")
            t.copy_(given)
    put_in(model, sites, name)
    if freeze:
        freeze_base(model)
    return describe(model, sites)


def check_base(
    model: nn.Module, path: Any, about: dict[str, Any], here: dict[str, nn.Module], table: dict[str, type[DeltaModule]]
) -> None:
    """Raise BaseMismatch, saying whether structure or values differ."""
    for site in about["sites"]:
        if site["path"] not in here:
            raise BaseMismatch(f"{path} changes {site['path']!r}, which this {type(model).__name__} does not have")
    own = fingerprint(model, held_by(model, [(s["path"], table[s["method"]], s["hparams"]) for s in about["sites"]]))
    if own["structure"] != about["base"]["structure"]:
        raise BaseMismatch(
            f"{path} was made on a base with other parameters or shapes than this {type(model).__name__}"
        )
    if own["values"] != about["base"]["values"]:
        raise BaseMismatch(
            f"{path} was made on a base with the same shapes as this {type(model).__name__} but other weights; load "
            "the weights it was trained on"
        )
