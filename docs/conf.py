"""How `make docs` builds these pages: Markdown by MyST, the API pages by autodoc, all that can be derived by generate.

The build is strict (-W -n): a link, an anchor or a name that leads nowhere fails it, and so does a page that no
table of contents has.
"""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from sphinx.application import Sphinx  # noqa: E402

from docs import generate  # noqa: E402
from docs.generators.text import rest  # noqa: E402

project = "deltatune"
author = "the authors of deltatune"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["tables"]  # which pages include
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3  # `page.md#a-heading` is a link
smartquotes = False  # a quotation mark in a docstring is often code
nitpicky = True
# Types of other packages, and aliases and type variables, which have no entry of their own.
nitpick_ignore_regex = [
    ("py:.*", r"(torch|nn|collections|os|pathlib|typing|numpy|transformers)\b.*"),
    ("py:class", r"(experiments\..*\.)?(Delta|Draw|Dtype|Ending|Family|Learned|Load|LossOn|Maker|Scoring|Trains)"),
    ("py:class", r"deltatune\..*\.(PlannedSite|Row|Written)"),
    ("py:class", r"Tensor|Callable\[\.\.\."),  # the fields of Frozen, whose default is no Python
]
autodoc_member_order = "bysource"
html_theme = "furo"
html_title = "deltatune"
html_show_copyright = False
html_show_sphinx = False


def plain_docstring(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are prose, not reStructuredText: their signs are kept as they are."""
    lines[:] = rest(lines)


def plain_signature(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """A dataclass gives its annotations as text, and defaults that are no Python; both are written as Python here."""
    if signature:
        signature = re.sub(r": '([^']*)'", r": \1", signature).replace("<factory>", "...")
    return signature, returned


def write_report(app: Sphinx, error: Exception | None) -> None:
    """The HTML report of the committed results, which the page on results links to."""
    if error is None:
        from experiments.report.content import gather
        from experiments.report.page import write

        content = gather(
            [ROOT / "experiments" / "results"], title="The committed runs, which are no ranking of methods"
        )
        write(content, Path(app.outdir) / "report.html")


def setup(app: Sphinx) -> None:
    app.connect("builder-inited", lambda app: generate.write())
    app.connect("autodoc-process-docstring", plain_docstring)
    app.connect("autodoc-process-signature", plain_signature)
    app.connect("build-finished", write_report)
