"""A member that diverged makes losses NaN; soups that choose by losses leave it out."""

from __future__ import annotations

import torch

from pluria.core.ensemble import stack
from pluria.core.params import Params
from pluria.merge import pruned_soup
from pluria.merge.greedy import worth
from pluria.merge.pruned import pruned_weights


def test_a_pruned_soup_leaves_what_is_no_number() -> None:
    def loss(params: Params) -> float:
        value = float(params["w"].sum())
        return float("nan") if value > 100 else value

    members = stack([{"w": torch.tensor([value])} for value in (1.0, 2.0, 1e6)])
    assert float(pruned_soup(members, loss)["w"]) < 3


def test_weights_start_anew_from_what_is_no_number() -> None:
    found = pruned_weights(3, lambda weights: float("nan") if weights[2] else float(weights.sum()), order=[0, 1, 2])
    assert found[2] == 0


def test_no_number_ranks_last() -> None:
    assert sorted([2.0, float("nan"), 1.0], key=worth)[:2] == [1.0, 2.0]
