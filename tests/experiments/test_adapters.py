"""The composition of adapters: ten domains are there, each score has its weights, and the page shows the figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "adapters"
NAMES = "run", "tables", "texts"


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[ModuleType, ModuleType, ModuleType]]:
    """The scripts of the folder as modules, which no other test sees."""
    monkeypatch.syspath_prepend(FOLDER)
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import run
    import tables
    import texts

    yield run, tables, texts
    for name in NAMES:
        sys.modules.pop(name, None)


def test_ten_domains_are_there_and_differ(scripts: tuple[ModuleType, ...], real_data: Path) -> None:
    pytest.importorskip("idlelib", reason="this Python has no IDLE, whose texts are read")
    _, tables, texts = scripts
    learned, unseen = texts.learned(real_data / "text"), texts.unseen(real_data / "text")
    assert tuple(learned) == tables.ADAPTERS
    assert len(unseen) == 4
    assert all(40_000 < len(text) <= texts.SIZE for text in (learned | unseen).values())
    assert learned["plays"][:1000] not in unseen["later plays"]


def test_every_score_has_its_best_k(scripts: tuple[ModuleType, ...]) -> None:
    run, _, _ = scripts
    scores = {"uniform": torch.ones(6), "other": torch.arange(6.0)}
    found = {(name, k): weights.tolist() for name, k, weights in run.compositions(scores, 6)}
    assert list(found) == [("uniform", 6), *(("other", k) for k in run.KS)]
    assert found["other", 2] == pytest.approx([0, 0, 0, 0, 4 / 9, 5 / 9])
    assert found["uniform", 6] == pytest.approx([1 / 6] * 6)


def test_the_page_shows_the_stored_figures(scripts: tuple[ModuleType, ...]) -> None:
    _, tables, _ = scripts
    found = json.loads((FOLDER / "figures.json").read_text(encoding="utf-8"))
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(part in page for part in tables.tables(found).split("\n\n"))
