"""Delta files that are damaged, crafted, of another base or of another time: each refused by name, and the model
left as it was; and a disk that is full."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as serialise
from torch import nn

import deltatune as dt
from deltatune.deltafile import DTYPES, canonical, checksum, read, write
from tests.laws import image


def small(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 3))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A delta file of a small model: LoRA of rank 1 on both layers."""
    model = small()
    dt.inject(model, dt.LoRA.on("0|2", rank=1))
    dt.save(model, tmp_path / "delta.safetensors")
    return tmp_path / "delta.safetensors"


def refused(path: Path, error: type[dt.DeltaError], message: str, model: nn.Module | None = None) -> None:
    model = small() if model is None else model
    before = image(model)
    with pytest.raises(error, match=message):
        dt.load(model, path)
    assert image(model) == before


def crafted(file: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    """Rewrite the file with changed content and checksums that fit, so that the check behind them must fire."""
    about, tensors = read(file)
    change(about, tensors)
    about["tensors"] = {k: about["tensors"].get(k, "") and checksum(t) for k, t in tensors.items()}
    about["checksum"] = hashlib.sha256(canonical(about).encode()).hexdigest()
    file.write_bytes(serialise(tensors, {"deltatune": canonical(about)}))


def test_another_base_with_the_same_shapes(file: Path) -> None:
    refused(file, dt.BaseMismatch, "same shapes as this Sequential but other weights", small(seed=1))


def test_another_base_with_other_shapes(file: Path) -> None:
    other = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))
    refused(file, dt.BaseMismatch, "other parameters or shapes", other)


def test_a_base_without_the_path(file: Path) -> None:
    refused(file, dt.BaseMismatch, "changes '2', which this Sequential does not have", nn.Sequential(nn.Linear(3, 2)))


def test_one_base_in_two_dtypes_is_one_base(file: Path) -> None:
    dt.load(small().to(torch.bfloat16), file)


def drop(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    del tensors["0.A"]


def add(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors["0.C"] = torch.zeros(2)
    about["tensors"]["0.C"] = "new"


def reshape(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors["0.A"] = torch.zeros(3, 1)


def retype(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors["0.A"] = torch.zeros(1, 3, dtype=torch.int32)


def not_a_number(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    tensors["2.B"][0] = float("nan")


def unknown(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    about["sites"][0]["method"] = "NobodyWroteThis"


def surplus_hparam(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    about["sites"][0]["hparams"]["colour"] = "red"


def future(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    about["format"] = 99


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "tensor '0.A' is missing"),
        (add, "tensor '0.C' belongs to no parameter"),
        (reshape, r"'0.A' has shape \[3, 1\], its site needs \[1, 3\]"),
        (retype, "'0.A' has dtype torch.int32"),
        (not_a_number, "'2.B' holds NaN or infinity"),
        (unknown, "unknown method 'NobodyWroteThis'; define it, or pass it in methods="),
        (surplus_hparam, "0: LoRA: .*colour"),
        (future, "has format 99; this version of deltatune reads 1 and 2"),
    ],
)
def test_consistent_files_with_wrong_content(file: Path, change: Any, message: str) -> None:
    crafted(file, change)
    refused(file, dt.FormatError, message)


def without(*keys: str) -> Callable[[dict[str, Any], dict[str, torch.Tensor]], None]:
    """Metadata that lacks a part."""

    def change(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        for key in keys:
            about = about[0] if key == "first" else about.setdefault(key, {}) if key != keys[-1] else about
        del about[keys[-1]]

    return change


def tied_to_nothing(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    del tensors["2.A"]
    about["tied"]["2.A"] = "0.Z"


def impossible_rank(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    about["sites"][0]["hparams"]["rank"] = 0


def list_of_hparams(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    about["sites"][0]["hparams"] = ["rank", 1]


@pytest.mark.parametrize(
    "change",
    [
        tied_to_nothing,
        impossible_rank,
        list_of_hparams,
        without("format"),
        without("base"),
        without("sites"),
        without("tied"),
        without("base", "structure"),
        without("sites", "first", "hparams"),
        without("sites", "first", "method"),
        without("sites", "first", "path"),
    ],
)
def test_consistent_files_that_nobody_saved(file: Path, change: Any) -> None:
    """Checksums say that a file is whole, not that what it says makes sense."""
    crafted(file, change)
    refused(file, dt.FormatError, re.escape(str(file)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("0.B"), "tensor '0.B' is missing"),
        (lambda tensors: tensors.update({"0.C": torch.zeros(2)}), "tensor '0.C' is not one that the metadata names"),
        (lambda tensors: tensors.update({"0.A": tensors["0.A"] + 1}), "tensor '0.A' is damaged"),
        (lambda tensors: tensors.update({"0.A": tensors["0.A"].view(3, 1)}), "tensor '0.A' is damaged"),
        (lambda tensors: tensors.update({"0.A": tensors["0.A"].view(torch.int32)}), "tensor '0.A' is damaged"),
    ],
)
def test_tensors_that_are_not_those_of_the_metadata(file: Path, change: Any, message: str) -> None:
    _, tensors = read(file)
    data = file.read_bytes()
    kept = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    change(tensors)
    file.write_bytes(serialise(tensors, kept))
    refused(file, dt.FormatError, message)


def test_methods_are_looked_up_where_told(file: Path) -> None:
    with pytest.raises(dt.FormatError, match="unknown method 'LoRA'"):
        dt.load(small(), file, methods={})
    dt.load(small(), file, methods={"LoRA": dt.LoRA})


def test_any_truncation(file: Path) -> None:
    data = file.read_bytes()
    for length in range(0, len(data), 7):
        file.write_bytes(data[:length])
        refused(file, dt.FormatError, "safetensors|metadata|header")


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80, 0xFF])
def test_any_single_flipped_byte(file: Path, flip: int) -> None:
    """Every byte of the file: length, header, its padding, metadata and tensors."""
    data = bytearray(file.read_bytes())
    model = small()
    before = image(model)
    for i in range(len(data)):
        data[i] ^= flip
        file.write_bytes(data)
        with pytest.raises((dt.FormatError, dt.BaseMismatch)):
            dt.load(model, file)
        data[i] ^= flip
    assert image(model) == before


@pytest.mark.parametrize("blank", [b"\t", b"\n", b"\r"])
def test_padding_that_is_no_space(tmp_path: Path, blank: bytes) -> None:
    """A header is padded with spaces; to a parser of JSON any blank would do."""
    path, model = tmp_path / "delta.safetensors", nn.Sequential(nn.Linear(3, 1))
    dt.inject(model, dt.LoRA.on("0", rank=1))
    dt.save(model, path)
    data = bytearray(path.read_bytes())
    end = 8 + int.from_bytes(data[:8], "little")
    padding = len(data[8:end]) - len(data[8:end].rstrip(b" "))
    if not padding:  # the header happens to fill its words: one more of them, blank
        data[end:end], end, padding = b" " * 8, end + 8, 8
        data[:8] = (end - 8).to_bytes(8, "little")
        path.write_bytes(data)
        read(path)
    for i in range(end - padding, end):
        path.write_bytes(data[:i] + blank + data[i + 1 :])
        with pytest.raises(dt.FormatError, match="the header is damaged"):
            read(path)


@pytest.mark.slow
def test_bytes_that_mean_something_in_json(tmp_path: Path) -> None:
    """Space for newline, one digit or quote for another, every single bit: what a parser may take for the same."""
    path, model = tmp_path / "delta.safetensors", nn.Sequential(nn.Linear(3, 1))
    dt.inject(model, dt.LoRA.on("0", rank=1))
    dt.save(model, path)
    data = bytearray(path.read_bytes())
    for i, right in enumerate(data):
        for value in ({right ^ (1 << bit) for bit in range(8)} | set(b' \t\n\r"\\{}[]:,/0123456789aeEAf.-+')) - {right}:
            data[i] = value
            path.write_bytes(data)
            with pytest.raises(dt.FormatError):
                read(path)
        data[i] = right


@pytest.mark.parametrize("content", [b"", b"hello", b"\x80\x04pickle", json.dumps({"a": 1}).encode() * 9])
def test_not_a_safetensors_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "delta.safetensors"
    path.write_bytes(content)
    refused(path, dt.FormatError, "not a whole safetensors file")


def test_a_safetensors_file_of_somebody_else(tmp_path: Path) -> None:
    path = tmp_path / "delta.safetensors"
    path.write_bytes(serialise({"weight": torch.zeros(3)}, {"format": "pt"}))
    refused(path, dt.FormatError, "without deltatune's metadata")


def test_a_delta_that_diverged_is_not_saved_over_a_good_one(file: Path) -> None:
    good = file.read_bytes()
    model = small()
    dt.load(model, file)
    dt.parameters(model)[0][1].data.fill_(float("inf"))
    with pytest.raises(dt.FormatError, match=r"0\.A holds NaN or infinity"):
        dt.save(model, file)
    assert file.read_bytes() == good


def test_large_values_whose_sum_overflows_are_saved(tmp_path: Path) -> None:
    model = small()
    dt.inject(model, dt.LoRA.on("0"))
    dt.parameters(model)[0][1].data.fill_(3e38)
    dt.save(model, tmp_path / "large.safetensors")
    again = small()
    dt.load(again, tmp_path / "large.safetensors")
    assert dt.parameters(again)[0][1].min().item() == dt.parameters(model)[0][1].min().item()


FULL_DISK = """
import resource, signal, sys, torch, deltatune as dt
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
model = torch.nn.Sequential(torch.nn.Linear(64, 64))
dt.inject(model, dt.LoRA.on("0", rank=64))
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    dt.save(model, sys.argv[1])
except OSError as error:
    print("OSError", error.errno)
"""


def test_a_full_disk_leaves_the_old_file(file: Path) -> None:
    """The limit on a file's size stands for the disk: writing breaks off in the middle."""
    good = file.read_bytes()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(file)], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.startswith("OSError")
    assert file.read_bytes() == good
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("step", ["fdopen", "writev", "chmod", "replace"])
def test_a_save_that_breaks_off_anywhere(file: Path, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    good, model = file.read_bytes(), small()
    dt.load(model, file)

    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(f"deltatune.deltafile.os.{step}", full)
        with pytest.raises(OSError, match="No space left"):
            dt.save(model, file)
    assert file.read_bytes() == good and list(file.parent.iterdir()) == [file]
    dt.save(model, file)
    assert file.read_bytes() == good


def test_a_file_is_what_safetensors_itself_would_write(tmp_path: Path) -> None:
    tensors = {f'{"z" if i % 2 else "a"}"é\\{i}': torch.arange(3 * i).reshape(3, i).to(t) for i, t in enumerate(DTYPES)}
    tensors |= {"scalar": torch.tensor(2.5), "turned": torch.rand(4, 600).T, "empty": torch.zeros(0, 4)}
    tensors |= {f"many.{i}": torch.tensor([float(i)]) for i in range(1100)}
    size = write(tmp_path / "x", tensors, {"sites": ["ü"]})
    written = (tmp_path / "x").read_bytes()
    assert size == len(written)
    header = json.loads(written[8 : 8 + int.from_bytes(written[:8], "little")])
    plain = {name: t.contiguous() for name, t in tensors.items()}
    assert written == serialise(plain, header["__metadata__"])


def test_a_dtype_that_the_format_lacks(tmp_path: Path) -> None:
    with pytest.raises(dt.FormatError, match=r"'0\.A' is torch\.complex64"):
        write(tmp_path / "x", {"0.A": torch.zeros(2, dtype=torch.complex64)}, {})
    assert not list(tmp_path.iterdir())
