"""Runs as one self-contained HTML page, and a compact table for the terminal.

    python -m experiments.report DIR... [--comparison FILE] [--out report.html]

content.py gathers what the page shows, samples.py the predictions side by side, page.py writes the file. Nothing is
loaded from a network, and the page may not: its content security policy forbids it.
"""

from __future__ import annotations

from experiments.report.content import gather
from experiments.report.lines import compact_tables
from experiments.report.page import write

__all__ = ["compact_tables", "gather", "write"]
