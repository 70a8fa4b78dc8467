"""The tables of the ladder's README are those of its figures, and what is said to agree is near."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "ladder"


def tables() -> Any:
    spec = importlib.util.spec_from_file_location("ladder_tables", FOLDER / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_has_the_tables_of_the_figures() -> None:
    text, found = (FOLDER / "README.md").read_text(), json.loads((FOLDER / "figures.json").read_text())
    assert [part[:60] for part in tables().tables(found).split("\n\n") if part not in text] == []
    assert {len(seeds) for seeds in found["rungs"].values()} == {12}


def test_figures_agree_within_two_standard_errors_of_both() -> None:
    module = tables()
    module.KNOWN = (("one", "other", -0.02, 0.001), ("one", "far", -0.02, 0.001), ("far", "one", -0.02, 0.001))
    rungs = {
        name: {str(seed): {"nll": value + 0.001 * (seed % 2) * (name == "one")} for seed in range(4)}
        for name, value in {"one": 0.1, "other": 0.12, "far": 0.2}.items()
    }
    words = [row.split(" | ")[-1].removesuffix(" |") for row in module.beside(rungs).splitlines()[2:]]
    assert words == ["agree", "differ in size", "differ"]
