"""The joint score of an arm and the temperature of its members."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import one_hot

from pluria.pool import fit_temperature
from pluria.recipe.outputs import Outputs
from pluria.recipe.together import members_temperature, together


def rows(members: int, *, count: int = 200, seed: int = 0) -> Outputs:
    """Logits that lean towards the targets, overconfident by three."""
    draw = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (count,), generator=draw)
    logits = 3 * (one_hot(y, 4) + torch.randn(members, count, 4, generator=draw))
    return Outputs.of(logits, y)


def test_one_member_has_the_temperature_of_its_logits() -> None:
    one = rows(1)
    assert members_temperature(one) == pytest.approx(fit_temperature(one.logits[0], one.y).value, rel=1e-3)


def test_the_temperature_of_several_members_is_the_best_on_a_grid() -> None:
    several = rows(4)
    best = members_temperature(several)

    def loss(temperature: float) -> float:
        chosen = (several.logits.double() / temperature).softmax(-1).mean(0).gather(1, several.y[:, None])
        return float(-chosen.log().mean())

    assert all(loss(best) <= loss(best * factor) + 1e-9 for factor in (0.5, 0.9, 0.99, 1.01, 1.1, 2.0))


def test_a_single_model_gains_nothing_from_scoring_labels_together() -> None:
    found = together(rows(1), rows(1, seed=1))
    assert found["repeated"] == pytest.approx(found["repeated_marginal"])
    assert found["distinct"] == pytest.approx(found["distinct_marginal"])
    assert found["distinct_all_epistemic"] == pytest.approx(found["distinct_marginal"])
    assert found["repeated_all_epistemic"] < found["repeated"] / 3, "repeating a label is what the control does"


def test_members_that_differ_score_repeated_labels_better() -> None:
    found = together(rows(6), rows(6, seed=1))
    assert found["repeated"] < found["repeated_marginal"]


def test_dense_and_few_rows_have_none() -> None:
    dense = Outputs.of(torch.randn(2, 30, 5, 4), torch.zeros(30, 5, dtype=torch.int64))
    assert together(dense, dense) == {}
    few = rows(2, count=19)
    assert together(few, few) == {}
