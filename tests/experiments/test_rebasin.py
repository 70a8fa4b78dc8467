"""The re-basin experiment runs on a small pair, and its page shows the stored figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from pluria.zoo import read

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "rebasin"
NAMES = "run", "tables", "picture"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType, ModuleType]]:
    """The scripts of the folder as modules, which no other test sees."""
    monkeypatch.syspath_prepend(FOLDER)
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import picture
    import run
    import tables

    yield run, tables, picture
    for name in NAMES:
        sys.modules.pop(name, None)


def test_a_pair_is_judged_every_way(scripts: tuple[ModuleType, ...]) -> None:
    run, tables, _ = scripts
    train, test = (read("digits", split=split).take(slice(0, 200)) for split in ("train", "test"))
    for name, made in (("mlp", {"inputs": 64, "classes": 10, "hidden": [8]}), ("small_cnn", {"width": 4})):
        rows = run.judged(run.trained(name, name, made, 0, train, test))
        found = {row["way"]: row for row in rows}
        assert found["matched by weights"]["distance"] < found["as they are"]["distance"] < 1.2
        assert len(found["as they are"]["losses"]) == run.STEPS
        assert tables.lines(rows).count("\n") == 4


def test_the_page_shows_the_stored_figures(scripts: tuple[ModuleType, ...], tmp_path: Path) -> None:
    _, tables, picture = scripts
    rows = json.loads((FOLDER / "figures.json").read_text(encoding="utf-8"))
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(table in page for table in tables.tables(rows).split("\n\n"))
    picture.draw(rows, tmp_path / "lines.svg")
    assert (tmp_path / "lines.svg").read_bytes() == (FOLDER / "lines.svg").read_bytes()
