"""The arms of the training experiment are the right members; its table and pictures come from made-up answers too."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import pluria
from pluria.zoo import read

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "fast-ensembling"
MODULES = ("runs", "answers", "arms", "run", "tables", "plots")


@pytest.fixture
def scripts(monkeypatch):
    """The scripts of the folder as modules, which no other test sees."""
    monkeypatch.syspath_prepend(FOLDER)
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    found = SimpleNamespace(**{name: __import__(name) for name in MODULES})
    yield found
    for name in MODULES:
        sys.modules.pop(name, None)


SIZES = {"end": 1, "sse": 5, "csghmc": 10, "fge": 3, "swa": 1, "swag": 8, "ivon": 8, "ivon_mean": 1}


@pytest.fixture
def told(scripts):
    """Two seeds; every member's logits are its own noise about the truth."""
    generator, y = torch.Generator().manual_seed(0), torch.arange(80) % 3
    truth = torch.nn.functional.one_hot(y, 3).float()

    def answers(seed, kind, ensemble):
        noise = torch.randn(len(ensemble), 80, 3, generator=generator)
        return scripts.answers.Answers(ensemble, noise + truth)

    def made(seed):
        own = {}
        for kind, size in SIZES.items():
            whole = pluria.stack([{"a.weight": torch.randn(4, 6, generator=generator)} for _ in range(size)])
            own[kind] = answers(seed, kind, whole)
            if kind in scripts.answers.DRAWS:
                rounded = pluria.low_precision(whole, members=size * scripts.answers.DRAWS[kind])
                own[f"{kind}, INT-5"] = answers(seed, kind, rounded)
        own["end, nearest INT-5"] = answers(seed, "end", pluria.nearest(own["end"].ensemble))
        return own

    rows = replace(read("digits", split="test").take(range(80)), targets=y)
    return SimpleNamespace(seeds={seed: made(seed) for seed in range(2)}, rows=rows)


def test_after_a_cycle_there_are_the_draws_of_its_members_and_no_others(scripts, told):
    own = told.seeds[0]
    found = {arm.name: arm for arm in scripts.arms.arms(told.seeds, 0)}
    two, whole = found["SSE, INT-5 × 4"].answers, own["sse"].ensemble
    assert found["SSE, INT-5 × 4"].runs == 0.4
    assert found["cyclical SGHMC × 4"].runs == 0.4
    for place, params in enumerate(two.ensemble):
        gaps = [float((params["a.weight"] - base["a.weight"]).abs().max()) for base in whole]
        assert min(gaps) == gaps[place % 2] < 0.5
    assert torch.equal(two.logits[2], own["sse, INT-5"].logits[5])


def test_deep_ensembles_begin_with_the_own_seed(scripts, told):
    found = {arm.name: arm for arm in scripts.arms.arms(told.seeds, 1)}
    pair = found["deep ensemble × 2"]
    assert torch.equal(pair.answers.logits[0], told.seeds[1]["end"].logits[0])
    assert pair.runs == 2
    assert len(found["deep ensemble × 2, INT-5 × 8"].answers.ensemble) == 8


def test_table_and_pictures_hold_every_arm(scripts, told, tmp_path):
    stored = {"about": "made up", "arms": {}}
    for seed in told.seeds:
        for arm in scripts.arms.arms(told.seeds, seed):
            row = scripts.run.judged(arm.answers, told.rows)
            row |= {"runs": arm.runs, "forwards": len(arm.answers.ensemble), "line": arm.line, "rounded": arm.rounded}
            stored["arms"].setdefault(arm.name, {})[str(seed)] = row
    text = scripts.tables.tables(stored)
    assert all(f"| {name} |" in text for name in stored["arms"])
    compared = {one for pair in scripts.tables.PAIRS for one in pair}
    assert {name for name in compared if "× 3" not in name or "FGE" in name} <= set(stored["arms"])
    lines = {line for line in scripts.plots.LINES if scripts.plots.places(stored["arms"], line, False, "runs", "nll")}
    assert lines == set(scripts.plots.LINES)
    scripts.plots.draw(stored, tmp_path / "a.svg")
    scripts.plots.draw(stored, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*-*.json")), ids=lambda file: file.stem)
def test_the_page_shows_the_stored_figures(scripts, file):
    found = json.loads(file.read_text(encoding="utf-8"))
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert scripts.tables.ladder(found["arms"]) in page
    assert scripts.tables.paired(found["arms"]) in page
