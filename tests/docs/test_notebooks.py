"""Every notebook runs from top to bottom in an empty folder, and is kept without outputs."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path: Path) -> list[dict[str, Any]]:
    """The cells of a notebook of format 4.5; AssertionError for another, and for one that holds outputs."""
    held = json.loads(path.read_text(encoding="utf-8"))
    assert (held["nbformat"], held["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in held["cells"]}) == len(held["cells"])
    for cell in held["cells"]:
        assert cell["cell_type"] in ("code", "markdown")
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    return held["cells"]  # type: ignore[no-any-return]


def run(path: Path) -> dict[str, Any]:
    """Run the code cells in one namespace, as a kernel does; the names they leave."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells(path):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}, {cell['id']}", "exec"), names)
    return names


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run(path)


def test_there_are_notebooks() -> None:
    assert {path.name for path in NOTEBOOKS} >= {"five_lines.ipynb", "estimators.ipynb"}
    for path in NOTEBOOKS:
        for cell in cells(path):
            if cell["cell_type"] == "code":
                ast.parse("".join(cell["source"]))


def test_the_test_can_fail(tmp_path: Path) -> None:
    def write(**changes: Any) -> Path:
        cell = {"cell_type": "code", "id": "a", "source": ["x = 1\n", "1 / 0"], "outputs": [], **changes}
        path = tmp_path / "n.ipynb"
        path.write_text(json.dumps({"nbformat": 4, "nbformat_minor": 5, "cells": [cell]}))
        return path

    with pytest.raises(ZeroDivisionError):
        run(write())
    with pytest.raises(AssertionError):
        run(write(outputs=[{"text": "1"}]))
    assert run(write(source=["x = 1"]))["x"] == 1
