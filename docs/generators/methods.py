"""A page for each method: what it computes, its paper, its configuration and how it is run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

import deltatune
from docs.generators.text import ROOT, doc, inline, page, prose, table
from experiments.config.methods import METHODS
from experiments.config.table import first_line

RUN = "python -m experiments.run method={name} {on} optim=quick task.n_train={n} forgetting.enabled=false device=cpu"
TEXT, CLASSES = {"on": "model=tiny", "n": 40}, {"on": "model=tiny_encoder task=ha_intent", "n": 80}
BASELINE = "A baseline: what every method is compared with, and no fine-tuning itself."


def pages() -> dict[str, str]:
    """The index, and the page of every configuration of the package."""
    configs = {name: path for name, path in METHODS.items() if isinstance(path, Path)}
    return {"methods/index.md": index(configs)} | {
        f"methods/{name}.md": method_page(name, path) for name, path in configs.items()
    }


def index(configs: dict[str, Path]) -> str:
    lines = []
    for name, path in configs.items():
        config = read(path)
        classes = ", ".join(f"`{each}`" for each in class_names(config)) or "–"
        lines.append([f"[{name}]({name}.md)", inline(summary(config, path)), classes, f"{config['lr']:g}"])
    return page(
        "# Methods",
        "Each method is a configuration that `method=` names: the classes of deltas, their hyperparameters and a "
        "learning rate to begin with.",
        table(["method", "what it is", "classes", "learning rate"], lines),
        "Classes without a configuration of their own are in the [reference](../api/methods.md); a method of your own "
        "is added by a [recipe](../extending/method.md).",
        "```{toctree}\n:hidden:\n\n" + "\n".join(configs) + "\n```",
    )


def method_page(name: str, path: Path) -> str:
    config = read(path)
    classes = [getattr(deltatune, each) for each in class_names(config)]
    about = [f"## `{each.__name__}`\n\n{prose(doc(each))}" for each in classes]
    return page(
        f"# {name}",
        inline(summary(config, path)) + ".",
        BASELINE if config.get("baseline") else "",
        "Every weight of the model is trained, and no delta is put in." if config.get("trains") == "everything" else "",
        *about,
        paper(name, config),
        "## Configuration",
        f"`experiments/conf/method/{path.name}`, of which a command changes any key, as `method.lr=1e-3`:",
        f"```yaml\n{path.read_text(encoding='utf-8').strip()}\n```",
        "## A run of it",
        "On random weights, to see it work within a minute:",
        f"```sh\n{RUN.format(name=name, **(CLASSES if tells_classes(config) else TEXT))}\n```",
        "Another model and task take `model=` and `task=`; the [names](../api/names.md) are listed.",
    )


def tells_classes(config: dict[str, Any]) -> bool:
    """Whether the method is for classification alone: it trains a task head and nothing else, or predicts classes."""
    trains_deltas = config.get("trains", "deltas") == "deltas"
    return "predictor" in config or (trains_deltas and not config.get("rules"))


def paper(name: str, config: dict[str, Any]) -> str:
    """The rows of PAPERS.md on exactly the method's classes, its variants included."""
    wanted = set(class_names(config)) or ({"Full", "diff"} if name == "full" else None)
    rows = [row for row in paper_rows() if set(re.findall(r"`(\w+)", row["class"])) == wanted]
    if not rows:
        return ""
    return "## Paper\n\n" + table(
        ["variant", "class", "paper", "formula, init and choices"], [[*r.values()] for r in rows]
    )


def paper_rows() -> list[dict[str, str]]:
    """The table of PAPERS.md, links and all."""
    text = (ROOT / "PAPERS.md").read_text(encoding="utf-8")
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return [dict(zip(cells[0], row)) for row in cells[2:]]


def read(path: Path) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(path))  # type: ignore[return-value]


def class_names(config: dict[str, Any]) -> list[str]:
    return [rule["method"] for rule in config.get("rules", [])]


def summary(config: dict[str, Any], path: Path) -> str:
    """The comment that the configuration opens with."""
    line = first_line(path)
    return line[:1].upper() + line[1:]
