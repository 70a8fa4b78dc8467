"""What studies print is kept, of those that fail as well."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from study.kept import Kept


def report(name: str, outcome: str, when: str = "call", printed: str = "", said: str = "") -> Any:
    """As pytest makes one after each phase of a test."""
    return SimpleNamespace(
        nodeid=f"tests/study/test_gaps.py::{name}", outcome=outcome, passed=outcome == "passed", when=when,
        duration=61.4, capstdout=printed, longreprtext=said,
    )  # fmt: skip


def test_what_is_printed_is_kept_beside_how_it_ended(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "results")
    kept.pytest_runtest_logreport(report("test_one", "passed", "setup"))
    assert not (tmp_path / "results").exists()
    kept.pytest_runtest_logreport(report("test_one", "passed", printed="the gap is 0\n"))
    kept.pytest_runtest_logreport(report("test_two", "failed", said="E  no gap at all"))
    kept.pytest_runtest_logreport(report("test_three", "skipped", "setup", said="no data"))
    command, machine, empty, *rest = (tmp_path / "results" / "gaps.txt").read_text().splitlines()
    assert command == "python -m pytest -m study tests/study/test_gaps.py"
    assert machine.endswith(f"torch {torch.__version__}")
    assert empty == ""
    assert rest == [
        "PASSED test_one (61 s)", "    the gap is 0", "FAILED test_two (61 s)", "    E  no gap at all",
        "SKIPPED test_three (61 s)", "    no data",
    ]  # fmt: skip
