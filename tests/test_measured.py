"""What benchmarks share is right, and each of them runs at its smallest setting."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from benchmarks import (
    ahead,
    fidelity,
    files,
    generate,
    growth,
    memory,
    merge,
    prediction,
    products,
    profile,
    rounding,
    serve,
    sides,
    table,
    uncertainty,
    writing,
)
from benchmarks.networks import Case, case
from benchmarks.sides import Ratio
from pluria.predict import Choice
from pluria.sample import low_precision
from pluria.zoo import network


@pytest.fixture
def small() -> Case:
    model = network("cifar_resnet", depth=8, classes=4).eval()
    return Case(model, list(torch.randn(6, 3, 8, 8).split(4)), "small")


def test_a_ratio_is_that_of_pairs() -> None:
    found = sides.ratio("a / b", [1.0, 6.0, 4.0], [1.0, 2.0, 2.0], bar=3.0, scale=2.0)
    assert found == Ratio("a / b", 4.0, 2.0, 6.0, 3.0)
    with pytest.raises(ValueError, match="zip"):
        sides.ratio("a / b", [1.0], [1.0, 2.0])


def test_ways_take_turns_and_the_first_round_does_not_count() -> None:
    order: list[str] = []
    ways = {"a": lambda: order.append("a"), "b": lambda: 7.0}
    seconds = sides.turns(ways, 2)
    assert order == ["a"] * 3
    assert seconds["b"] == [7.0, 7.0]
    assert len(seconds["a"]) == 2


def test_what_is_kept_is_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sides, "RESULTS", tmp_path)
    file = sides.keep("made", [Ratio("a / b", 2.0, 1.5, 2.5, 3.0), Ratio("c / d", 0.1234, 0.1, 0.2)], more=[1])
    held = json.loads(file.read_text())
    assert held["more"] == [1]
    assert {"date", "processor", "cores", "threads", "torch"} <= held["machine"].keys()
    rows = table.rows([file])
    assert [row[:5] for row in rows] == [
        ("made", "a / b", "2", "1.5 to 2.5", "3"),
        ("made", "c / d", "0.123", "0.1 to 0.2", ""),
    ]
    assert rows[0][5].startswith(f"{held['machine']['cores']} cores, {held['machine']['date'][:10]}")


def test_every_ratio_stands_in_the_table_once() -> None:
    found = table.rows(sorted(sides.RESULTS.rglob("*.json")))
    assert len(found) > 100
    assert len({row[:2] for row in found}) == len(found)
    bars = {row[1]: row[4] for row in found if row[0] == "files" and row[4]}
    assert {what.partition(": ")[2]: bar for what, bar in bars.items()} == {
        "10 int5 as bit planes, b + K ÷ float32 checkpoint": "1",
        "1000 int5 as base and key ÷ float32 checkpoint": "1.02",
    }


@pytest.mark.parametrize("file", sorted(sides.RESULTS.rglob("*.json")), ids=lambda file: file.stem)
def test_stored_results_say_where_and_when_and_lie_within_their_spread(file: Path) -> None:
    held = json.loads(file.read_text())
    assert held["machine"]["date"] > "2026"
    assert held["machine"]["processor"]
    for one in held.get("ratios", []):
        assert one["low"] <= one["ratio"] <= one["high"], one["what"]
    assert len(table.rows([file])) == len(held.get("ratios", []))


def test_predictions(small: Case) -> None:
    made = low_precision(small.model, format="int4", members=2)
    found = prediction.measure("resnet20", small, made, Choice("channels_last"), 1, True, None, "wall", True)
    assert [one.what.split("pluria / ")[1] for one in found] == ["one pass", "deep copies", "stack and vmap"]
    assert all(one.ratio > 0 and one.bar is None for one in found)
    assert prediction.first_run(small, made, Choice("bfloat16")) is None


def test_ways_that_predictions_are_compared_with_give_what_members_give(small: Case) -> None:
    made = low_precision(small.model, format="int4", members=2)
    x, several = small.batches[0], prediction.copies(small, made)
    seen: list[Any] = []
    for model in several:
        model.register_forward_hook(lambda module, inputs, output: seen.append(output))
    prediction.in_a_loop(Case(small.model, [x], ""), several)()
    with torch.no_grad():
        for output, params in zip(seen, made, strict=True):
            torch.testing.assert_close(output, torch.func.functional_call(small.model, dict(params), (x,)))


def test_writing(small: Case) -> None:
    found = writing.measure(small, ("loop", "bfloat16"), "stratified", 1, "cpu")
    assert [one.what for one in found] == [
        "small, stratified: writing a member by loop, the mean of eight / a forward in float32",
        "small, stratified: writing a member by bfloat16, the mean of eight / a forward in float32",
        "small, stratified: writing a member by bfloat16, the mean of eight / a forward by bfloat16",
        "small: writing the first of sixteen by loop / a forward in float32",
        "small: writing the first of sixteen by bfloat16 / a forward in float32",
    ]
    assert len(writing.measure(small, ("loop", "bfloat16"), "independent", 1, "cpu")) == 3
    assert writing.Seconds([9.0], [1.0]).member == [2.0]


def test_ahead(small: Case) -> None:
    found = ahead.measure(small, 3, 1)
    assert found.what == "small, bfloat16: writing the next member meanwhile / before"
    assert found.ratio > 0


def test_rounding_and_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounding, "TURN", 0.0)
    rows = rounding.measure(8000, 1, "int4")
    assert [row.name for row in rows] == list(rounding.ways())
    assert rounding.table(rows).row_count == 5
    assert len(rounding.stored(8000, 1, "int4", 1)) == 5
    one, speed = growth.writing(10_000, 1)
    assert one.what == "10,000 parameters: writing a member / copying its weights"
    assert speed > 0
    assert [found.what for found in growth.members_cost([1, 2], 1)] == [
        "K = 2: seconds per member / those at K = 1",
    ]


def test_products_are_those_of_one_layer() -> None:
    for ways in (products.linear(8, 16), products.convolution(16, 32, 4)):
        shapes = {way: tuple(work().shape) for way, work in ways.items()}  # type: ignore[attr-defined]
        assert {"float32", "bfloat16"} <= set(shapes)
        assert len(set(shapes.values())) == 1


def test_fidelity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logits, targets = torch.tensor([[[0.0, 0.0]], [[2.0, 2.0]]]), torch.tensor([1])
    assert fidelity.figures(logits, targets) == {"nll": pytest.approx(0.6931, abs=1e-4), "error": 1.0}
    assert fidelity._spread([0.5], 100) == "50.0000"
    assert fidelity._spread([0.5, 0.7], 1) == "0.6000 ± 0.1414"
    monkeypatch.chdir(tmp_path)
    fidelity.main()
    assert "no data/cifar10_resnets/resnet20.safetensors" in capsys.readouterr().out


def test_memory(small: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "case", lambda name, rows: small)
    assert memory.child("loop", 2) > 2**20


def test_profiles(small: Case) -> None:
    seconds, shares = profile.shares(prediction.one_pass(small))
    assert seconds > 0
    assert 0 < sum(share for _, share in shares) <= 1


def test_sizes_of_files() -> None:
    rows = files.measure("small", nn.Linear(64, 64), 3)
    assert {row.members for row in rows} >= {3}
    assert all(row.bytes > 0 and row.checkpoints > 0 for row in rows)


def test_merges() -> None:
    def row(way: str, state: str, *seconds: float) -> merge.Row:
        return merge.summary("ties", way, state, [merge.Run(s, 1.0, 2 * s, 10 * s) for s in seconds])

    fixed = [row("imports, pluria", "cached", 1.0), row("imports, mergekit", "cached", 2.0)]
    rows = [row("copy", "cold", 1.0, 4.0), row("floor", "cold", 1.5, 6.0), row("pluria", "cold", 3.0, 4.0)]
    assert [(one.ratio, one.bar) for one in merge.ratios("ties", rows, fixed)] == [(2.0, None), (1.5, None)]
    assert [one.bar for one in merge.ratios("linear", rows, fixed)] == [1.5, None]
    rows += [row("pluria", "cached", 3.0, 3.0), row("mergekit", "cached", 7.0, 7.0), row("floor", "cached", 1.0, 1.0)]
    found = {one.what: (one.ratio, one.bar) for one in merge.ratios("ties", rows, fixed)}
    assert found == {
        "ties: wall, cold files / of a copy": (2.0, None),
        "ties, floor: wall, cold files / of a copy": (1.5, None),
        "ties: CPU / mergekit's": (0.5, 1 / 8),
        "ties, floor: CPU / mergekit's": (0.25, None),
        "ties: CPU beyond imports / mergekit's": (0.4, None),
        "ties: wall, cached files / mergekit's": (3 / 7, None),
        "ties: memory / mergekit's": (3 / 7, 1 / 3),
    }


def test_served() -> None:
    load = serve.Load(1000, 100, 30.0, sent=8, answered=6, answers_per_second=12.3)
    assert serve.told(load) == Ratio(
        "1000 connections, queue of 100: answered / sent, at 12 answers a second", 0.75, 0.75, 0.75
    )


def test_text() -> None:
    row = generate._row("loop", 8, 1, [4.0, 9.0], [2.0, 3.0])
    assert (row.ratio, row.lowest, row.highest) == (2.5, 2.0, 3.0)
    assert generate.table([row]).row_count == 1


def test_other_libraries_see_a_tensor() -> None:
    class Answer(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return type("Output", (), {"logits": x + 1})

    assert torch.equal(uncertainty.Logits(Answer())(torch.zeros(2)), torch.ones(2))
    assert torch.equal(uncertainty.Logits(nn.Identity())(torch.zeros(2)), torch.zeros(2))


def test_networks_say_what_they_are() -> None:
    found = case("resnet20", 300)
    assert [len(batch) for batch in found.batches] == [256, 44]
    assert found.what.endswith("weights, 300 images in batches of 256")
    assert not found.model.training
