"""The verbs on a whole model, LoRA r16 on every linear layer, against PEFT's own: milliseconds, medians.

    python -m benchmarks.bench_verbs [--quick] [--model smollm2]

inject / get_peft_model; save / save_pretrained; load / from_pretrained; load another / load_adapter; use / set_adapter;
merged, in and out / merge_adapter and unmerge_adapter.
"""  # fmt: skip

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

import deltatune as dt
from benchmarks.command import Case, finish, parser, run, settle
from benchmarks.providers import NO_PEFT
from benchmarks.steps import MODELS, SCENARIOS, base, peft_model
from benchmarks.timing import Timed

NAME = "bench_verbs"
SCENARIO = SCENARIOS["bf16"]
VERBS = ("inject", "save", "load", "load another", "switch", "merge and back")


def ours(model: nn.Module, folder: Path) -> dict[str, Timed]:
    """Each leaves "a" injected and live, and "b" beside it from "load another" on."""
    rule, file = dt.LoRA.on(rank=SCENARIO.rank, alpha=32), folder / "a.safetensors"
    dt.inject(model, rule, name="a")
    dt.save(model, file, name="a")

    def without_b() -> None:
        if any("._deltas.b." in name for name, _ in dt.parameters(model)):
            dt.eject(model, "b")

    def merge_and_back() -> None:
        with dt.merged(model, "a"):
            pass

    return {
        "inject": Timed(lambda: dt.inject(model, rule, name="a"), before=lambda: dt.eject(model)),
        "save": Timed(lambda: dt.save(model, file, name="a")),
        "load": Timed(lambda: dt.load(model, file, name="a"), before=lambda: dt.eject(model)),
        "load another": Timed(lambda: dt.load(model, file, name="b"), before=without_b),
        "switch": Timed(lambda: dt.use(model, "b"), before=lambda: dt.use(model, "a")),
        "merge and back": Timed(merge_and_back, before=lambda: dt.use(model, "a")),
    }


def pefts(model: Any, folder: Path) -> dict[str, Timed]:
    from peft import PeftModel

    held: dict[str, Any] = {"peft": peft_model(model, SCENARIO, widen=True)}
    held["peft"].save_pretrained(str(folder))

    def plain() -> None:
        if "peft" in held:
            held["plain"] = held.pop("peft").unload()

    def wrap() -> None:
        held["peft"] = peft_model(held["plain"], SCENARIO, widen=True)

    def load() -> None:
        held["peft"] = PeftModel.from_pretrained(held["plain"], str(folder), is_trainable=True)

    def without_b() -> None:
        if "b" in held["peft"].peft_config:
            held["peft"].delete_adapter("b")

    def merge_and_back() -> None:
        held["peft"].merge_adapter(["default"])
        held["peft"].unmerge_adapter()

    return {
        "inject": Timed(wrap, before=plain),
        "save": Timed(lambda: held["peft"].save_pretrained(str(folder))),
        "load": Timed(load, before=plain),
        "load another": Timed(lambda: held["peft"].load_adapter(str(folder), "b", is_trainable=True), before=without_b),
        "switch": Timed(lambda: held["peft"].set_adapter("b"), before=lambda: held["peft"].set_adapter("default")),
        "merge and back": Timed(merge_and_back, before=lambda: held["peft"].set_adapter("default")),
    }


def cases(options: Any) -> Iterator[Case]:
    model = base(options.model, SCENARIO, options.device)
    with TemporaryDirectory() as folder:
        paths = Path(folder) / "peft", Path(folder)
        theirs = pefts(copy.deepcopy(model), paths[0]) if find_spec("peft") is not None else {}
        mine = ours(model, paths[1])
        for verb in VERBS:
            providers = {"peft": theirs.get(verb, NO_PEFT), "ours": mine[verb]}
            yield Case(verb, options.model, providers, SCENARIO.rank, None, SCENARIO.dtype, median=True, clock="wall")


def main(argv: list[str] | None = None) -> int:
    made = parser(NAME, __doc__ or "", threads=[torch.get_num_threads()])
    made.add_argument("--model", default="smollm2", choices=MODELS)
    return finish(run(NAME, cases, settle(made.parse_args(argv))))


if __name__ == "__main__":
    sys.exit(main())
