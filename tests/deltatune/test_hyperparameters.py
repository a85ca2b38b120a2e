"""Hyperparameters are checked and made plain at injection, for every method by its constructor's annotations."""

from __future__ import annotations

import enum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import deltatune as dt
from deltatune.deltafile import read
from deltatune.host import hosts


class Form(enum.Enum):
    serial = "serial"


class Size(enum.IntEnum):
    four = 4


class Mine(dt.DeltaModule):
    """A method of thirty lines, with one hyperparameter of each kind."""

    def __init__(
        self,
        host: nn.Module,
        *,
        count: int = 1,
        scale: float = 1.0,
        deep: bool = False,
        word: str = "a",
        some: tuple[int, ...] = (),
        maybe: float | None = None,
        free=0,
    ):
        super().__init__()
        self.count, self.scale, self.deep, self.word = count, scale, deep, word
        self.some, self.maybe, self.free = some, maybe, free
        self.g = nn.Parameter(torch.zeros(dt.features(host).out))

    def change(self, x: Tensor, h: Tensor) -> Tensor:
        return self.g * h


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4))


GOOD: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    (dt.LoRA, {"rank": np.int64(2)}, {"rank": 2}),
    (dt.LoRA, {"rank": torch.tensor(2)}, {"rank": 2}),
    (dt.LoRA, {"rank": Size.four}, {"rank": 4}),
    (dt.LoRA, {"alpha": 8}, {"alpha": 8.0}),
    (dt.LoRA, {"alpha": np.float32(0.5), "dropout": torch.tensor(0.25)}, {"alpha": 0.5, "dropout": 0.25}),
    (dt.LoRA, {"rslora": np.bool_(True)}, {"rslora": True}),
    (dt.Adapter, {"form": Form.serial, "width": np.uint8(3), "scale": None}, {"form": "serial", "width": 3}),
    (dt.Adapter, {"scale": Fraction(1, 2), "act": np.str_("gelu")}, {"scale": 0.5, "act": "gelu"}),
    (dt.Full, {"only": ["weight"]}, {"only": ("weight",)}),
    (Mine, {"some": np.array([1, 2]), "maybe": 2}, {"some": (1, 2), "maybe": 2.0}),
    (Mine, {"some": torch.tensor([3]), "free": np.float64(1.5)}, {"some": (3,), "free": 1.5}),
    (Mine, {"some": range(2), "free": [1, "a", None]}, {"some": (0, 1), "free": (1, "a", None)}),
]


@pytest.mark.parametrize(("method", "given", "want"), GOOD)
def test_numbers_of_any_kind_are_made_plain(method: Any, given: Any, want: Any, tmp_path: Path) -> None:
    tuned = model()
    dt.inject(tuned, method.on("0", **given))
    dt.save(tuned, tmp_path / "a")
    said = read(tmp_path / "a")[0]["sites"][0]["hparams"]
    for name, value in want.items():
        assert (tuple(said[name]) if isinstance(value, tuple) else said[name]) == value
        assert type(said[name]) is (list if isinstance(value, tuple) else type(value))
    again = model()
    dt.load(again, tmp_path / "a")
    dt.save(again, tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


BAD: list[tuple[Any, dict[str, Any], str]] = [
    (dt.LoRA, {"rank": True}, "rank is a whole number, not True"),
    (dt.LoRA, {"rank": 2.0}, r"rank is a whole number, not 2\.0"),
    (dt.LoRA, {"rank": "8"}, "rank is a whole number, not '8'"),
    (dt.LoRA, {"rank": None}, "rank is a whole number, not None"),
    (dt.LoRA, {"rank": torch.tensor([1, 2])}, "rank is a whole number"),
    (dt.LoRA, {"alpha": None}, "alpha is a finite number, not None"),
    (dt.LoRA, {"alpha": float("inf")}, "alpha is a finite number, not inf"),
    (dt.LoRA, {"alpha": np.float64("nan")}, "alpha is a finite number"),
    (dt.LoRA, {"alpha": False}, "alpha is a finite number, not False"),
    (dt.LoRA, {"alpha": 1j}, "alpha is a finite number"),
    (dt.LoRA, {"rslora": 1}, "rslora is True or False, not 1"),
    (dt.Adapter, {"act": nn.ReLU}, "act is text"),
    (dt.Adapter, {"scale": "big"}, "scale is float or NoneType"),
    (dt.Prompt, {"tokens": (1.5,)}, "tokens is"),
    (dt.Prompt, {"tokens": (float("nan"),)}, "tokens is"),
    (Mine, {"some": 3}, "some is a sequence, not 3"),
    (Mine, {"maybe": [1]}, "maybe is float or NoneType"),
    (Mine, {"free": object()}, "free is what a file can hold"),
    (Mine, {"free": {1: 2}}, "free is what a file can hold"),
    (Mine, {"free": [float("inf")]}, "free is what a file can hold"),
]


@pytest.mark.parametrize(("method", "given", "message"), BAD)
def test_what_a_file_could_not_hold_is_refused_at_injection(method: Any, given: Any, message: str) -> None:
    tuned = nn.Sequential(nn.Embedding(9, 4)) if method is dt.Prompt else model()
    with pytest.raises(dt.DeltaError, match=rf"^0: {method.__name__}: {message}"):
        dt.inject(tuned, method.on("0", **given))
    assert not hosts(tuned)
