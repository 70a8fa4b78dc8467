"""Order of rows, the front and its knee, the ledger, what is asked, and what is said."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pluria.core.errors import RecipeError
from pluria.search import read_search
from pluria.search.front import front, knee
from pluria.search.halving import SHARES
from pluria.search.judge import Candidate
from pluria.search.ledger import Ledger
from pluria.search.order import FEWEST, order_of
from pluria.search.picture import draw
from pluria.search.run import planned
from pluria.search.spec import TAKEN
from pluria.search.told import sentences
from search.tiny import pictures


@pytest.mark.parametrize("targets", [torch.arange(1200) % 4, (torch.arange(1200) // 300)])
def test_every_look_holds_the_classes_in_their_shares(targets: torch.Tensor) -> None:
    order = order_of(targets, SHARES)
    for look, (fit, choose) in enumerate(order.stops):
        for rows, stop in ((order.one, fit), (order.other, choose)):
            counts = torch.bincount(targets[rows[:stop]], minlength=4)
            assert int(counts.max() - counts.min()) <= 1
        assert len(order.halves(look)) == fit + choose
    assert order.stops == ((75, 75), (200, 200), (600, 600))
    assert torch.cat([order.one, order.other]).unique().tolist() == list(range(1200))


def test_chunks_come_back_in_the_order_of_the_file() -> None:
    targets = torch.arange(500) % 3
    order = order_of(targets, SHARES)
    rows = torch.cat([order.chunk(look) for look in range(3)])
    assert torch.equal(order.restored(rows[None])[0], torch.arange(500))
    first = order.halves(2)
    assert set(rows[first].tolist()) == set(order.one.tolist())


def test_few_rows_are_all_looked_at_first() -> None:
    order = order_of(torch.arange(50) % 2, SHARES)
    assert order.stops[0] == (25, 25)
    assert FEWEST > 25
    assert order.chunks(2) == [0]


def candidate(bits: int, loss: float) -> Candidate:
    return Candidate(SimpleNamespace(name=str(bits), size=1), "mean_logit", True, loss, bits)  # type: ignore[arg-type]


def test_the_front_and_its_knee_by_hand() -> None:
    every = [candidate(*one) for one in ((8, 0.35), (4, 0.6), (1, 1.0), (2, 0.5), (4, 0.4), (16, 0.36))]
    line = front(every, lambda one: one.bits)
    assert [(one.bits, one.loss) for one in line] == [(1, 1.0), (2, 0.5), (4, 0.4), (8, 0.35)]
    # below the straight line by 0, 1 - 1/3 - 0.15/0.65 = 0.436, 1 - 2/3 - 0.05/0.65 = 0.256, 0
    bend = knee(line, lambda one: one.bits)
    assert bend is not None
    assert bend.bits == 2
    assert knee(line[:2], lambda one: one.bits) is None
    above = [candidate(*one) for one in ((1, 1.0), (2, 0.9), (4, 0.1))]
    assert knee(above, lambda one: one.bits) is None, "the middle lies above the line between the ends"


def test_a_ledger_never_goes_beyond_its_limit() -> None:
    ledger = Ledger(limit=100, unit=50)
    ledger.spend("a", 60)
    with pytest.raises(OverflowError, match="b would take 41 examples, and 40 of 100 are left"):
        ledger.spend("b", 41)
    ledger.spend("a", 40)
    assert (ledger.rows, ledger.left, ledger.forwards, ledger.spent) == (100, 0, 2.0, {"a": 100})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"search": {"forward": 3}}, "unknown key search.forward; did you mean 'forwards'"),
        ({"search": {"forwards": 0}}, r"search.forwards: .* greater than 0 \(got 0\)"),
        ({"search": {"forwards": float("inf")}}, r"search.forwards: .* finite number \(got inf\)"),
        ({"search": {"memory_bits": float("inf")}}, r"search.memory_bits: .* finite number"),
        ({"search": {"trainings": 0}}, r"search.trainings: .* greater than or equal to 1 \(got 0\)"),
        ({"search": {"pools": ["mean"]}}, "search.pools: no pool 'mean'"),
        ({"search": 3}, "search: wanted a mapping"),
        ({"seeds": [0, 1]}, "a search draws with one seed"),
    ],
)
def test_what_is_asked_is_checked(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        read_search({**pictures(tmp_path), **changes})


def test_budgets_of_the_command_stand_over_those_of_the_recipe(tmp_path: Path) -> None:
    held = {**pictures(tmp_path), "search": {"forwards": 50, "memory_bits": 1e6, "seed": 3}}
    recipe, budget, own = read_search(held, forwards=70, memory_bits=None)
    assert (budget.forwards, budget.memory_bits, budget.seed, budget.pools) == (70, 1e6, 3, TAKEN)
    assert recipe.seeds == (3,)
    assert own


def test_without_arms_every_axis_is_crossed(tmp_path: Path) -> None:
    held = pictures(tmp_path)
    del held["arms"]
    recipe, budget, own = read_search(held, forwards=200)
    assert not own
    kinds = planned(recipe, budget, own_arms=own).kinds
    drawn = [job.arm for job in kinds if job.arm.method in ("low_precision", "compensated")]
    assert {arm.options["format"] for arm in drawn} == {"int3", "int4", "int5", "int6"}
    assert {arm.options["coupling"] for arm in drawn} == {"stratified", "antithetic", "independent"}
    assert {arm.views for arm in drawn} == {("identity",), ("identity", "left")}
    assert {arm.refresh for arm in drawn} == {False, True}
    assert {job.arm.method for job in kinds} >= {"full_precision", "nearest", "gptq"}


def told(done: dict[str, Any], estimate: float, low: float, high: float) -> str:
    found = copy.deepcopy(done)
    found["figures"]["winner"]["name"] = "an ensemble"
    found["figures"]["single"]["difference"] = {"estimate": estimate, "low": low, "high": high, "level": 0.95}
    return " ".join(sentences(found))


def test_it_is_said_when_the_single_model_wins(done: tuple[Path, dict[str, Any]]) -> None:
    wins = "The temperature-scaled single model wins"
    assert "It beats the temperature-scaled single model (NLL −0.0200" in told(done[1], -0.02, -0.03, -0.01)
    assert wins not in told(done[1], -0.02, -0.03, -0.01)
    assert f"{wins}, for it is cheaper" in told(done[1], -0.02, -0.03, 0.01)
    assert f"{wins}: on the figure rows" in told(done[1], 0.02, 0.01, 0.03)
    alone = copy.deepcopy(done[1])
    alone["figures"]["winner"]["name"] = alone["figures"]["single"]["name"]
    assert f"{wins}: no ensemble" in " ".join(sentences(alone))


@pytest.mark.parametrize("axis", ["bits", "forwards"])
def test_pictures_are_the_same_bytes_each_time(done: tuple[Path, dict[str, Any]], tmp_path: Path, axis: str) -> None:
    for name in "ab":
        draw(done[1], axis, tmp_path / name)
    text = (tmp_path / "a").read_text()
    assert text == (tmp_path / "b").read_text()
    assert text.startswith("<svg xmlns=")
    assert "var(--" not in text
    assert done[1]["winner"]["name"] in text
