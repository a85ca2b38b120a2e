"""The page: a template, a style sheet, scripts and plotly.js, put into one file together with the content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from experiments.support.files import replaced

HERE = Path(__file__).parent
SCRIPTS = (
    "format.js",
    "state.js",
    "table.js",
    "comparison.js",
    "labels.js",
    "plots.js",
    "sections.js",
    "frontier.js",
    "protocol.js",
    "page.js",
)


def write(content: dict[str, Any], path: Path) -> int:
    """Write the page in place of the file and return its size in bytes."""
    jinja = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined)
    html = jinja.get_template("page.html").render(
        title=content["title"],
        style=(HERE / "style.css").read_text(encoding="utf-8"),
        plotly=get_plotlyjs(),
        content=inert(content),
        script="\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced(path) as written:
        # A lone surrogate, which a model's text may hold, has no UTF-8.
        return written.write_bytes(html.encode("utf-8", errors="replace"))


def inert(content: Any) -> str:
    """JSON that cannot end the script element it stands in, nor be read as HTML."""
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
