"""What studies print and how they end, kept as plain text: a file for each module, written anew after every test."""

from __future__ import annotations

import platform
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from benchmarks.machine import load_average, machine


class Kept:
    """A plugin of pytest; `folder` is made where it is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.told = folder, dict[str, list[str]]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that ended, or that could not begin."""
        if report.when != "call" and report.passed:
            return
        module, _, name = report.nodeid.partition("::")
        rows = self.told.setdefault(module, [header(module)])
        rows += [f"{report.outcome.upper()} {name} ({report.duration:.0f} s)"]
        rows += [f"    {line}" for line in f"{report.capstdout}\n{report.longreprtext}".splitlines() if line.strip()]
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{Path(module).stem.removeprefix('test_')}.txt").write_text("\n".join(rows) + "\n")


def header(module: str) -> str:
    """How to run the module again, when it was run, and on what."""
    found = machine()
    about = f"{found['processor']}, {found['cores']} cores, threads {found['threads']}, load {load_average()}"
    return (
        f"python -m pytest -m study {module}\n{datetime.now(UTC):%Y-%m-%d}, {about}; "
        f"{platform.system()}, Python {found['python']}, torch {torch.__version__}\n"
    )
