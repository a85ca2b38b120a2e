"""Pages that can be derived are derived: from docstrings, configurations and committed measurements, at every build.

    python -m docs.generate

writes them where conf.py reads them; git ignores all of them.
"""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from docs.generators import api, certified, methods, names, performance, planted, results, runs, tasks  # noqa: E402


def pages() -> dict[str, str]:
    """Every generated page's text by its path in docs/."""
    return {
        **methods.pages(),
        **api.pages(),
        "api/names.md": names.page_of_names(),
        "tables/certified.md": certified.page_of_certified(),
        "tables/planted.md": planted.page_of_planted(),
        "tables/tasks.md": tasks.page_of_tasks(),
        "tables/public_tasks.md": tasks.page_of_public_tasks(),
        "runs.md": runs.page_of_runs(),
        "results.md": results.page_of_results(),
        "performance.md": performance.page_of_performance(),
    }


def write() -> None:
    """Write the pages that changed, and take away those whose subject is gone."""
    texts = pages()
    for folder in ("methods", "api", "tables"):
        for old in (DOCS / folder).glob("*.md"):
            if old.relative_to(DOCS).as_posix() not in texts:
                old.unlink()
    for name, text in texts.items():
        path = DOCS / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:  # an unchanged page is not built again
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
