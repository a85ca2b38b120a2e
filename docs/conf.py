"""How `make docs` builds these pages: Markdown by MyST, the API pages by autodoc, all that can be derived by generate.

The build is strict (-W -n): a link, an anchor or a name that leads nowhere fails it, and so does a page that no
table of contents has.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]  # the packages of the checkout, and generate

project = "deltatune"
author = "the authors of deltatune"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_static"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3  # `page.md#a-heading` is a link
myst_enable_extensions = ["colon_fence"]
nitpicky = True
html_theme = "furo"
html_title = "deltatune"
html_show_copyright = False
html_show_sphinx = False
