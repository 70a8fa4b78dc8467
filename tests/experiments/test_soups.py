"""The soups experiment runs on few rows and steps, and its page shows the stored figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "soups"
NAMES = ("measure", "soups", "tasks", "sparse", "tables", "run")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The scripts of the folder as modules, which no other test sees, with an epoch and few steps in place of many."""
    monkeypatch.syspath_prepend(FOLDER)
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import soups
    import sparse
    import tables
    import tasks

    def once(model: Any, loss: Any, **options: Any) -> Any:
        return soups.long(model, loss, **{**options, "epochs": 1})

    monkeypatch.setattr(soups, "long", soups.descend, raising=False)
    monkeypatch.setattr(soups, "descend", once)
    monkeypatch.setattr(sparse, "descend", once)
    monkeypatch.setattr(soups, "MEMBERS", 3)
    for module, name in ((soups, "learned_soup"), (soups, "soft_merge"), (tasks, "adamerging")):
        monkeypatch.setattr(module, name, partial(getattr(module, name), steps=5))
    monkeypatch.setattr(tasks, "SCALES", (0.3,))
    monkeypatch.setattr(tasks, "HIDDEN", (16,))
    yield SimpleNamespace(soups=soups, tasks=tasks, sparse=sparse, tables=tables)
    for name in NAMES:
        sys.modules.pop(name, None)


def test_the_page_shows_the_stored_figures(scripts: SimpleNamespace) -> None:
    found = json.loads((FOLDER / "figures.json").read_text(encoding="utf-8"))
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for part, control in scripts.tables.PARTS.items():
        assert scripts.tables.table(found[part], control) in page, part


def test_every_part_runs(scripts: SimpleNamespace) -> None:
    from measure import Rows  # type: ignore[import-not-found]

    from pluria.zoo import read

    data = read("digits", split="all")
    rows = Rows(data.normalise(data.inputs).flatten(1), data.targets)
    found = {
        "local": scripts.soups.run(rows, "local", 0),
        "star": scripts.soups.run(rows, "star", 0),
        "tasks": scripts.tasks.run(rows, 0),
        "sparse": scripts.sparse.run(rows, 0),
    }
    for part, arms in found.items():
        for name, figures in arms.items():
            assert torch.tensor(list(figures.values())).isfinite().all(), (part, name)
        control = scripts.tables.PARTS[part]
        assert control in arms
        assert len(scripts.tables.table({name: [one, one] for name, one in arms.items()}, control).splitlines()) > 5
    assert found["sparse"]["one step: sparse soup"]["density"] == pytest.approx(0.05, abs=0.001)
    assert found["sparse"]["pruned apart: mean, which is denser"]["density"] > 0.0501
