"""Pools of arms: what is fitted on which rows, where a temperature stands, and what a recipe says of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pluria.core.errors import DataError, RecipeError
from pluria.pool import fit_linear, fit_log_linear, fit_temperature, greedy, mean_probability, vote
from pluria.pool.kinds import from_dict, to_dict
from pluria.recipe.catalogue import CATALOGUE
from pluria.recipe.measure import measure
from pluria.recipe.outputs import Outputs
from pluria.recipe.plan import draw, jobs
from pluria.recipe.pools import FOLDS, POOLS, answer, too_few
from pluria.recipe.run import run
from pluria.recipe.schema import ONLY
from pluria.recipe.source import Drawn, Source
from pluria.report.records import records
from pluria.report.tables import legend
from pluria.score import nll
from pluria.zoo.networks import network
from recipe.finished import made
from recipe.tiny import ARGUMENTS, recipe, write_all, write_data

K, N, C = 3, 60, 4
LOW = {"method": "low_precision", "members": 3, "format": "int3", "refresh": False}


def rows(seed: int, count: int = N) -> Outputs:
    """Members that know something of the labels, each more than the one before."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(C, (count,), generator=draw)
    lean = torch.tensor([0.2, 1.0, 2.0])[:, None, None] * torch.nn.functional.one_hot(y, C)
    return Outputs.of(torch.randn(K, count, C, generator=draw) + lean, y)


def loss(log_probs: Tensor, y: Tensor) -> float:
    return float(nll(log_probs, y).mean())


def test_every_pool_is_in_the_catalogue() -> None:
    assert set(POOLS) <= {row.name for row in CATALOGUE if row.verb in ("pool", "fit")}


@pytest.mark.parametrize("pool", POOLS)
def test_labels_of_the_figure_rows_fit_no_pool(pool: str) -> None:
    one, other = rows(1), Outputs(rows(1).logits, (rows(1).y + 1) % C)
    found = [measure(rows(0), figures, pool).answer for figures in (one, other)]
    assert found[0].loss == found[1].loss
    assert torch.equal(found[0](one), found[1](one))
    assert torch.allclose(found[0](one).logsumexp(-1), torch.zeros(N, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("pool", POOLS)
def test_the_first_member_alone_is_never_read_for_the_others(pool: str) -> None:
    spoiled = Outputs(rows(0).logits.clone(), rows(0).y)
    spoiled.logits[2] = torch.nan
    assert torch.equal(
        answer(pool, spoiled.first(2))(rows(1).first(2)), answer(pool, rows(0).first(2))(rows(1).first(2))
    )


def test_a_linear_pool_has_the_temperature_of_answers_by_other_folds() -> None:
    calibration, figures = rows(0), rows(1)
    folds = torch.empty(N, dtype=torch.int64)
    folds[calibration.y.argsort(stable=True)] = torch.arange(N) % FOLDS
    pooled = torch.empty(N, C, dtype=torch.float64)
    for fold in range(FOLDS):
        out = folds == fold
        fitted = fit_linear(calibration.logits[:, ~out].double(), calibration.y[~out])
        pooled[out] = fitted(calibration.logits[:, out].double())
    temperature = fit_temperature(pooled, calibration.y)
    found = answer("fit_linear", calibration)
    assert found.temperature == temperature
    assert found.loss == pytest.approx(loss(temperature(pooled), calibration.y), abs=1e-12)
    wanted = temperature(fit_linear(calibration.logits.double(), calibration.y)(figures.logits.double()))
    assert torch.allclose(found(figures), wanted, atol=1e-12)


def test_a_log_linear_pool_has_a_temperature_of_its_own() -> None:
    found = answer("fit_log_linear", rows(0))
    assert found.temperature.value == 1.0
    wanted = fit_log_linear(rows(0).logits.double(), rows(0).y)(rows(1).logits.double())
    assert torch.allclose(found(rows(1)), wanted, atol=1e-12)
    assert found.loss > loss(found(rows(0)), rows(0).y), "rows that were seen would look better"


def test_greedy_weighs_the_members() -> None:
    found = answer("greedy", rows(0))
    pooled = mean_probability(rows(1).logits.double(), greedy(rows(0).logits.double(), rows(0).y))
    assert torch.allclose(found(rows(1)), found.temperature(pooled), atol=1e-12)


def test_a_vote_counts_one_more_for_every_class() -> None:
    shares = vote(rows(1).logits.double()).exp()
    found = answer("vote", rows(0))
    wanted = found.temperature(((shares * K + 1) / (K + C)).log())
    assert torch.allclose(found(rows(1)), wanted, atol=1e-12)
    assert math.isfinite(loss(found(rows(1)), rows(1).y))


@pytest.mark.parametrize("pool", POOLS)
def test_a_file_can_hold_what_is_fitted(pool: str) -> None:
    found = answer(pool, rows(0))
    chain = found.chain()
    if pool == "vote":
        assert chain is None, "a chain would leave out the vote more for every class"
        return
    again = from_dict(json.loads(json.dumps(to_dict(chain))))
    assert torch.equal(again(rows(1).logits.double()), found(rows(1)))


def test_places_of_one_example_share_a_fold() -> None:
    y = torch.arange(40).reshape(10, 4) % C
    dense = Outputs.of(torch.randn(K, 10, 4, C, generator=torch.Generator().manual_seed(0)), y)
    found = answer("fit_linear", dense)
    pooled = torch.empty(40, C, dtype=torch.float64)
    for fold in range(FOLDS):
        out = (torch.arange(10) % FOLDS == fold).repeat_interleave(4)
        pooled[out] = fit_linear(dense.logits[:, ~out].double(), dense.y[~out])(dense.logits[:, out].double())
    assert found.loss == pytest.approx(loss(fit_temperature(pooled, dense.y)(pooled), dense.y), abs=1e-12)


@pytest.mark.parametrize(("members", "count", "wanted"), [(3, 25, None), (3, 24, 20), (12, 30, None), (12, 29, 24)])
def test_too_few_labels_are_counted_outside_each_fold(members: int, count: int, wanted: int | None) -> None:
    assert too_few("greedy", members, torch.zeros(count, dtype=torch.int64)) == wanted
    assert too_few("mean_logit", members, torch.zeros(count, dtype=torch.int64)) is None
    dense = torch.full((10, count), -100)
    dense[:, :5] = 0
    assert too_few("greedy", 3, dense) is None
    assert too_few("greedy", 21, dense) == 42


def test_unknown_pools_are_refused_with_the_nearest_name(task: Path) -> None:
    with pytest.raises(RecipeError, match="pool: no pool 'mean_logits' for arms; did you mean 'mean_logit'"):
        recipe(task, pool="mean_logits")
    with pytest.raises(RecipeError, match=r"arms.0: pool: no pool 'median' for arms"):
        recipe(task, arms=[{**LOW, "pool": "median"}])


def planned(**changes: Any) -> list[tuple[str, str | None]]:
    found = jobs(recipe(Path(), **changes), {ONLY: Source(network("small_cnn", **ARGUMENTS))}, images=True)
    return [(job.arm.method, job.arm.pool) for job in found if not job.candidate]


def test_the_recipes_pool_is_that_of_every_arm_of_several_members() -> None:
    found = planned(pool="vote", arms=[LOW, {**LOW, "pool": "greedy"}], controls=False)
    assert found == [("full_precision", None), ("low_precision", "vote"), ("low_precision", "greedy")]


def test_controls_answer_by_the_pool_of_the_arm_too() -> None:
    found = planned(arms=[{**LOW, "pool": "greedy"}], views=None)
    assert found.count(("full_precision", "greedy")) == found.count(("full_precision", None)) - 1 == 2
    assert ("gaussian", "greedy") in found
    assert ("nearest", None) in found


def test_arms_that_differ_in_their_pool_share_predictions(tmp_path: Path) -> None:
    write_all(tmp_path)
    write_data(tmp_path / "data.npz", rows=80)
    arms = [{**LOW, "each": {"pool": ["fit_log_linear", "vote"]}}, LOW]
    found = run(recipe(tmp_path, arms=arms, controls=False), tmp_path / "out")
    assert made(tmp_path / "out") == 1 + 3
    named = {record["name"]: record["pool"] for record in records(found)}
    assert named["INT-3 stratified by fit_log_linear × 3"] == "log-linear"
    assert named["INT-3 stratified by vote × 3"] == "vote"
    assert "the pool that an arm names" in legend(found)
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["recipe"]["arms"][0]["each"]["pool"]


def test_a_pool_that_labels_fit_needs_rows(task: Path) -> None:
    with pytest.raises(DataError, match=r"12 members need 24 labels there; .* has 20 rows in all"):
        run(recipe(task, arms=[{**LOW, "members": 12, "pool": "fit_linear"}], controls=False), task / "out")
    assert not (task / "out").exists()


def test_members_with_feedback_are_drawn_once(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pluria.recipe import makers

    drawn: list[int] = []
    plain = makers.with_feedback

    def counted(*args: Any, members: int, **options: Any) -> Any:
        drawn.append(members)
        return plain(*args, members=members, **options)

    monkeypatch.setattr(makers, "with_feedback", counted)
    arm = {"method": "compensated", "members": 3, "format": "int4", "refresh": False}
    run(recipe(task, arms=[arm, {**arm, "refresh": True}], controls=False), task / "out")
    assert drawn == [1, 3], "one member while checking, then all of them once"


def test_drawn_members_are_found_by_position_and_leave_where_there_is_no_room(task: Path) -> None:
    source = Source(network("small_cnn", **ARGUMENTS))
    (job,) = [
        job for job in jobs(recipe(task, arms=[LOW], controls=False), {ONLY: source}, images=False) if not job.control
    ]
    model, ensemble = draw(job, ONLY, source, [0, 1, 2])
    size = ensemble.bits().file // 8
    kept = Drawn(room=2 * size)
    kept.keep("a", [0, 1, 2], (model, ensemble))
    found = kept.find("a", [2, 0])
    assert found is not None
    assert found[1].members == (2, 0)
    assert kept.find("a", [3]) is None
    for name in "bc":
        kept.keep(name, [0, 1, 2], (model, ensemble))
    assert [name for name in "abc" if kept.find(name, [0])] == ["b", "c"]
    kept.keep("b", [0], (model, ensemble))
    assert Drawn(room=size - 1).find("b", [0]) is None
