"""The pools experiment runs on made-up networks, its page shows the stored figures, its real rows are aligned."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "pools"


@pytest.fixture
def scripts(monkeypatch):
    """The scripts of the folder as modules, which no other test sees."""
    monkeypatch.syspath_prepend(FOLDER)
    for name in ("eight", "tables", "run", "picture"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import eight
    import picture
    import run
    import tables

    yield SimpleNamespace(eight=eight, run=run, tables=tables, picture=picture)
    for name in ("eight", "tables", "run", "picture"):
        sys.modules.pop(name, None)


@pytest.fixture
def made_up(scripts):
    """Four networks that know the same classes through noise of their own; the last one knows nothing."""
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(3, (260,), generator=generator)
    truth = torch.nn.functional.one_hot(y, 3).double()
    noise = 1.2 * torch.randn(4, 260, 3, generator=generator, dtype=torch.float64)
    outputs = noise + truth * torch.tensor([1.0, 1.0, 1.0, 0.0]).reshape(4, 1, 1)
    return scripts.eight.Predictions(outputs.log_softmax(-1), y, ("a", "b", "c", "d"), ("x", "x", "y", "y"))


def test_it_runs_on_made_up_networks_and_prints_every_pool(scripts, made_up, tmp_path):
    options = {"splits": 2, "fitting": 60, "rows": (30, 60), "members": (1, 4)}
    found = json.loads(json.dumps(scripts.run.measure(made_up, **options)))
    text = scripts.tables.tables(found)
    assert all(f"| {name} |" in text for name in (*scripts.run.POOLS, *made_up.names))
    own = {name: [one["nll"] for one in splits] for name, splits in found["pools"]["splits"].items()}
    assert own.pop("vote") == [None, None]
    losses = {name: sum(values) / 2 for name, values in own.items()}
    assert losses["log-linear"] < losses[scripts.run.CONTROL]
    assert found["rows"]["60"]["linear"] == pytest.approx(own["linear"])
    estimate, low, high = found["pools"]["against the control"]["log-linear"]
    assert low < estimate < high
    assert estimate == pytest.approx(losses["log-linear"] - losses[scripts.run.CONTROL])
    scripts.picture.draw(found, tmp_path / "a.svg")
    scripts.picture.draw(found, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_no_row_is_in_both_parts_and_fewer_rows_are_a_part_of_more(scripts):
    fitting, test = scripts.run.split(50, 20, 3)
    assert sorted([*fitting.tolist(), *test.tolist()]) == list(range(50))
    assert scripts.run.split(50, 20, 3)[0].tolist() == fitting.tolist()
    assert scripts.run.split(50, 20, 4)[0].tolist() != fitting.tolist()


def test_no_figure_depends_on_the_labels_of_other_rows_than_its_own(scripts, made_up):
    """Fits see the labels of the fitting rows alone: other labels on the rest change no answer."""
    test = scripts.run.split(260, 60, 0)[1]
    other = made_up.y.clone()
    other[test] = (other[test] + 1) % 3
    changed = scripts.eight.Predictions(made_up.log_probs, other, made_up.names, made_up.groups)
    first, second = (scripts.run.judged(p, scripts.run.FEW, 0, 60, 60) for p in (made_up, changed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_rows_in_another_order_are_found(scripts, made_up, monkeypatch):
    wrong = (made_up.log_probs.argmax(-1) != made_up.y).double().mean(1)
    monkeypatch.setattr(scripts.eight, "ERRORS", dict(zip(made_up.names, wrong.tolist(), strict=True)))
    scripts.eight.check(made_up)
    made_up.log_probs[1] = made_up.log_probs[1].flip(0)
    with pytest.raises(ValueError, match="b has an error"):
        scripts.eight.check(made_up)


def test_the_page_shows_the_stored_figures(scripts):
    found = json.loads((FOLDER / "figures.json").read_text(encoding="utf-8"))
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    for table in scripts.tables.tables(found).split("\n\n"):
        assert table in page


def test_the_picture_is_of_the_stored_figures(scripts, tmp_path):
    found = json.loads((FOLDER / "figures.json").read_text(encoding="utf-8"))
    scripts.picture.draw(found, tmp_path / "figures.svg")
    drawn, kept = ((folder / "figures.svg").read_text(encoding="utf-8") for folder in (tmp_path, FOLDER))
    assert drawn.count("<path") == kept.count("<path")


def test_the_real_rows_are_aligned_and_one_pool_is_as_stored(scripts, real_data):
    predictions = scripts.eight.read(real_data)
    assert predictions.log_probs.shape == (8, 10_000, 10)
    fit = {"linear": scripts.run.POOLS["linear"]}
    test = scripts.run.split(10_000, 2000, 0)[1]
    pooled = scripts.run.judged(predictions, fit, 0, 2000, 2000)["linear"]
    stored = json.loads((FOLDER / "figures.json").read_text(encoding="utf-8"))["pools"]["splits"]["linear"][0]
    assert scripts.run.figures_of(pooled, predictions.y[test]) == pytest.approx(stored, abs=1e-6)
