"""One thread, no luck, Triton's interpreter where there is no GPU, and a count of the law cases at the end."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import settings

pytest.register_assert_rewrite("tests.support", "tests.laws")

# Triton reads this when it is imported, so here, before any test module is. With a GPU the kernels run on it.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

settings.register_profile("deltatune", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("deltatune")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "law: one case of the laws that deltas keep; counted at the end")
    torch.set_num_threads(1)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count what ran, on whichever worker: one test is one case, however many examples hypothesis draws in it."""
    ran = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, [])
        if report.when == "call" and "law" in report.keywords
    ]
    if ran:
        terminalreporter.write_line(f"law cases: {len(ran)}")
