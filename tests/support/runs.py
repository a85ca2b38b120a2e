"""What the tests of whole runs share: their data, their configuration, a cache of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from experiments.config.compose import register
from experiments.config.identity import run_name
from experiments.config.schema import Config
from experiments.run import execute
from experiments.store.result import plain

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def own_cache_and_torch_settings(tmp_path_factory, monkeypatch):
    """A cache for the tests alone, and torch's global settings put back."""
    monkeypatch.setenv("DELTATUNE_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    threads = torch.get_num_threads()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def words(path: Path, n: int = 40) -> Path:
    """A file of small generation records."""
    colours = ("red", "green", "blue", "grey")
    records = [{"prompt": f"{i} {colours[i % 4]} lamp?", "completion": f"{colours[i % 4]} {i % 3}"} for i in range(n)]
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def classes(path: Path, n: int = 40) -> Path:
    records = [{"text": ("warm " if i % 2 else "cold ") * (1 + i % 5) + str(i), "label": "ab"[i % 2]} for i in range(n)]
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def overrides(tmp_path: Path, *more: str, file: Path | None = None) -> list[str]:
    data = file or words(tmp_path / "words.jsonl")
    return [
        *("model=tiny", "task=jsonl", f"task.train={data}", "task.n_val=5", "task.n_test=6", "optim=quick"),
        *(
            "eval.max_new_tokens=6",
            "forgetting.n_text=3",
            "forgetting.n_kl=2",
            "device=cpu",
            f"out={tmp_path / 'runs'}",
            *more,
        ),
    ]


def config(*given: str) -> Config:
    register()
    with initialize_config_dir(str(ROOT / "experiments" / "conf"), version_base="1.3"):
        made = OmegaConf.to_object(compose("config", overrides=list(given)))
    assert isinstance(made, Config)
    return made


def run(made: Config) -> dict[str, Any]:
    """Carry the run out; what stands in its result.json."""
    return plain(execute.run(made))


def directory(made: Config) -> Path:
    return Path(made.out) / run_name(made)


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "wall_s"} for line in lines]
