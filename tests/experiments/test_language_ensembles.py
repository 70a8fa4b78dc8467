"""The experiment of two tokenizers: nothing of what follows reaches a prediction, and its page shows its figures."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("transformers", reason="transformers is not installed")

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "language-ensembles"
TEXT = "the cat sat on the mat. a dog ran to the cat.\nthe dog sat. " * 8


@pytest.fixture
def scripts(monkeypatch):
    """The scripts of the folder as modules, which no other test sees."""
    monkeypatch.syspath_prepend(FOLDER)
    for name in ("run", "tables"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import run
    import tables

    yield SimpleNamespace(run=run, tables=tables)
    for name in ("run", "tables"):
        sys.modules.pop(name, None)


@pytest.fixture
def speakers(scripts, monkeypatch):
    """Two networks that were hardly trained, one of letters and one of short words."""
    monkeypatch.setattr(scripts.run, "STEPS", 2)
    made = []
    for words in (20, 40):
        monkeypatch.setattr(scripts.run, "WORDS", words)
        tokenizer = scripts.run.bpe(TEXT)
        read = torch.tensor(tokenizer(TEXT)["input_ids"])
        with torch.random.fork_rng():
            made.append(scripts.run.trained(tokenizer, len(tokenizer), read, seed=0))
    return made


def test_the_second_network_hears_only_what_stands_before(scripts, speakers):
    main, other = speakers
    one, two = (
        scripts.run.tables({"same": main}, {"other": other}, [f"the cat sat {rest}"])
        for rest in ("on the mat", "to a dog")
    )
    torch.testing.assert_close(one.own["same"][:9], two.own["same"][:9])
    torch.testing.assert_close(one.others["other"][:9], two.others["other"][:9])
    assert not torch.allclose(one.others["other"][-1], two.others["other"][-1])
    # In the main network's own tokenizer, what is heard is what is said.
    both = scripts.run.tables({"same": main}, {"again": main}, ["the cat sat on the mat."])
    torch.testing.assert_close(both.others["again"], both.own["same"], atol=1e-5, rtol=1e-4)


def test_every_arm_is_judged(scripts, speakers):
    main, other = speakers
    found = scripts.run.tables({"same": main}, {"other": other}, ["the cat sat.", "a dog ran"])
    rows = scripts.run.two_vocabularies(found, "same", main.tokenizer, {"other": other.tokenizer})
    assert len(rows) == 3 * 5 + 1
    assert all(value > 0 for *_, values in rows for value in values)


def test_bits_by_hand(scripts):
    rows = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    found = scripts.run.Tables(torch.tensor([0, 0]), {}, {}, 6, 0)
    assert scripts.run.bits(rows, found) == pytest.approx(((1 + 2) / 6,) * 2)
    assert scripts.run.bits(torch.tensor([[0.0, 1.0], [0.5, 0.5]]).log(), found) == (math.inf, math.inf)


def test_temperatures_see_the_first_windows_alone(scripts):
    rows = torch.tensor([[0.9, 0.1]]).log().expand(60, 2).double()
    targets = torch.tensor(
        [0, 1] * 20 + [0] * 20
    )  # chance on the rows of the fit, so nothing is left of the confidence
    plain, scaled = scripts.run.bits(rows, scripts.run.Tables(targets, {}, {}, 20, 40))
    assert plain == pytest.approx(-math.log2(0.9))
    assert scaled == pytest.approx(1, abs=0.01)


def test_the_page_shows_the_stored_figures(scripts):
    stored = json.loads((FOLDER / "figures.json").read_text(encoding="utf-8"))
    assert scripts.tables.page(stored["rows"]) in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert {row["seed"] for row in stored["rows"]} == set(scripts.run.SEEDS)
    assert scripts.tables.cell([1.0, None]) == "infinite"
