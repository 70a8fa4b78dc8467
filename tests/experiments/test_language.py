"""The experiment on a small language model: pages show its figures, every cell is there, groups are what they say."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pluria.core.rounded import Rounded
from store.tiny import tiny

pytest.importorskip("transformers", reason="transformers is not installed")

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "language"


@pytest.fixture
def scripts(monkeypatch):
    """The scripts of the folder as modules, which no other test sees."""
    monkeypatch.syspath_prepend(FOLDER)
    for name in ("measure", "tables"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import measure
    import tables

    yield SimpleNamespace(measure=measure, tables=tables)
    for name in ("measure", "tables"):
        sys.modules.pop(name, None)


def test_the_pages_show_the_stored_figures(scripts):
    stored = json.loads((FOLDER / "figures.json").read_text(encoding="utf-8"))
    assert scripts.tables.page(stored, short=True) in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert scripts.tables.page(stored, short=False) in (FOLDER / "figures.md").read_text(encoding="utf-8")


def test_every_cell_is_measured(scripts):
    rows = json.loads((FOLDER / "figures.json").read_text(encoding="utf-8"))["rows"]
    known = {(row["name"], row["members"]) for row in rows}
    formats, scales = scripts.measure.FORMATS, scripts.measure.SCALES.values()
    for format, scale, size in itertools.product(formats, scales, scripts.measure.SIZES):
        assert {(f"{format} {way}{scale}", size) for way in ("stochastic", "compensated")} <= known
    for format, scale in itertools.product(formats, scales):
        assert {(f"{format} {way}{scale}", 1) for way in ("nearest", "nearest with feedback")} <= known
    assert len({(row["name"], row["seed"], row["members"]) for row in rows}) == len(rows)


def test_arms_and_their_scales(scripts, monkeypatch):
    measure, model = scripts.measure, tiny("llama", hidden_size=16, intermediate_size=12)
    monkeypatch.setattr(measure, "FORMATS", ("int4",))
    monkeypatch.setattr(measure, "SIZES", (1, 2))
    reads = torch.randint(0, 11, (4, 8), generator=torch.Generator().manual_seed(0))
    made = measure.arms(model, reads, 0)
    names = [f"int4 {way}{scale}" for scale in measure.SCALES.values() for way in ("stochastic", "compensated")]
    assert list(made) == [*names, "int4 compensated, block by block"]
    families = made["int4 stochastic, groups of 16"]().families
    groups = {name: one.granularity for name, one in families.items() if isinstance(one, Rounded)}
    odd = {name for name in groups if "down_proj" in name}
    assert {name: size for name, size in groups.items() if size != 16} == dict.fromkeys(odd, 4)
    assert len(odd) == 2
    whole = made["int4 stochastic"]().families
    assert groups.keys() == {name for name, one in whole.items() if isinstance(one, Rounded)}
    assert len(made["int4 compensated, groups of 16"]()) == 2
    assert len(measure.single(model, reads)) == 6


def test_a_table_by_hand(scripts):
    tables = scripts.tables
    rows = [
        {"name": name, "seed": seed, "members": size, "stories": {"nats": nats}}
        for name, seed, size, nats in (
            ("full precision", None, 1, 1.0), ("int3 stochastic", 0, 1, 2.0), ("int3 stochastic", 1, 1, 4.0),
            ("int4 nearest, groups of 4", None, 1, 1.5), ("int3 stochastic", 0, 2, 9.0),
        )
    ]  # fmt: skip
    found = tables.table(rows, tables.QUANTITIES[0], (1,)).splitlines()
    assert found == [
        "Stories, nats for each token. Full precision: **1.000**.",
        "",
        "| arm | K | INT-3 | INT-4 |",
        "|---|---|---|---|",
        "| nearest, groups of 4 | 1 |  | 1.500 |",
        "| stochastic | 1 | 3.000 ± 1.414 |  |",
    ]
