"""The quantiles experiment: figures of made-up forecasts by hand, and the tables that show them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "quantiles"
NAMES = ("tables", "flusight", "concrete")


@pytest.fixture
def scripts(monkeypatch):
    """The scripts of the folder as modules, which no other test sees."""
    pytest.importorskip("sklearn", reason="the forecasts of concrete come from scikit-learn")
    monkeypatch.syspath_prepend(FOLDER)
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    import concrete
    import flusight
    import tables

    yield SimpleNamespace(concrete=concrete, flusight=flusight, tables=tables)
    for name in NAMES:
        sys.modules.pop(name, None)


def shifted(levels, rows, by):
    """Quantiles around zero that are equally far apart, moved."""
    return (torch.linspace(-1, 1, len(levels), dtype=torch.float64) + by).repeat(rows, 1)


def test_concrete(scripts):
    y = torch.zeros(12, dtype=torch.float64)
    pools = {"mean": shifted(scripts.concrete.LEVELS, 12, 0.0), "off": shifted(scripts.concrete.LEVELS, 12, 3.0)}
    found = json.loads(json.dumps({"pools": scripts.concrete.judged(pools, y)}))
    # All quantiles 3 higher and above y: each level's loss is 1 - a times what lies over y, twice its mean is 3 or so.
    losses = [2 * (1 - a) * q for a, q in zip(scripts.concrete.LEVELS, pools["off"][0].tolist(), strict=True)]
    assert found["pools"]["off"]["wis"] == pytest.approx(sum(losses) / 7)
    rows = scripts.tables.concrete(found).splitlines()
    assert rows[2].startswith("| mean | 0.")
    assert "| – | – | 100% | 100% | 0.0% |" in rows[2]
    assert rows[3].startswith(f"| off | {sum(losses) / 7:.3f} | +")
    assert rows[3].endswith("| 0% | 0% | 0.0% |")


def test_flusight(scripts):
    levels = torch.tensor([0.01, 0.025, 0.05, *[a / 20 for a in range(2, 19)], 0.95, 0.975, 0.99], dtype=torch.float64)
    rows, dates = 26, scripts.flusight.JUDGES + torch.arange(13).repeat(2)
    empty = torch.zeros(rows, dtype=torch.long)
    data = scripts.flusight.Forecasts([], torch.zeros(0), torch.zeros(rows).double(), levels, dates, empty, empty)
    pools = {"median": shifted(levels, rows, 0.0), "off": shifted(levels, rows, 3.0)}
    later = torch.arange(rows) != 0
    found = json.loads(json.dumps({"pools": scripts.flusight.judged(data, pools, later, 50)}))
    one = found["pools"]["off"]
    assert sum(one["parts"]) == pytest.approx(one["wis"])
    assert one["difference"] == pytest.approx([one["wis"] - found["pools"]["median"]["wis"]] * 3)
    lines = scripts.tables.flusight(found).splitlines()
    assert lines[2].startswith("| median | 0.")
    assert lines[2].endswith("| 100% | 100% | 0.0% |")
    assert lines[3].endswith("| 0% | 0% | 0.0% |")


def test_the_page_shows_tables_of_this_form(scripts):
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    empty = {"pools": {}}
    for table in (scripts.tables.flusight(empty), scripts.tables.concrete(empty)):
        assert table in page
