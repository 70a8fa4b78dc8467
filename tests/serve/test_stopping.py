"""The rule that stops early, worked by hand."""

from __future__ import annotations

import pytest
import torch

from pluria.serve.stopping import Rule


def answers(*lead: float) -> torch.Tensor:
    """Running answers of one example with two classes: the probability of the first after each member."""
    first = torch.tensor(lead, dtype=torch.float64)
    return torch.stack([first, 1 - first], -1)[:, None]


@pytest.mark.parametrize(
    ("lead", "stops"),
    [
        ((0.9,), False),
        ((0.9, 0.9), False),  # a window of two needs three answers
        ((0.9, 0.9, 0.9), True),
        ((0.8, 0.85, 0.8), True),  # the margin moves from 0.6 to 0.7
        ((0.8, 0.86, 0.8), False),  # to 0.72
        ((0.2, 0.8, 0.8, 0.8), True),  # what lies before the window does not count
        ((0.8, 0.8, 0.2), False),
        ((0.51, 0.49, 0.51), False),  # the choice changes within the window, though the margin hardly moves
        ((0.1, 0.1, 0.1), True),
        ((0.5, 0.5, 0.5), False),  # no lead, no choice
    ],
)
def test_margins_by_hand(lead: tuple[float, ...], stops: bool) -> None:
    assert Rule(0.1 + 1e-9, window=2).stopped(answers(*lead)).tolist() == [stops]


def test_each_example_stops_alone() -> None:
    both = torch.cat([answers(0.9, 0.9, 0.9), answers(0.9, 0.4, 0.9)], 1)
    assert Rule(0.0, window=2).stopped(both).tolist() == [True, False]


def test_the_lead_is_over_the_next_class() -> None:
    three = torch.tensor([[[0.5, 0.4, 0.1]], [[0.5, 0.1, 0.4]]])
    assert Rule(0.0, window=1).stopped(three).tolist() == [True]
    assert Rule(0.0, window=1).stopped(torch.ones(2, 1, 1)).tolist() == [True]


@pytest.mark.parametrize(("tolerance", "window"), [(-0.1, 3), (1.1, 3), (float("nan"), 3), (0.1, 0)])
def test_what_no_rule_is(tolerance: float, window: int) -> None:
    with pytest.raises(ValueError):
        Rule(tolerance, window)
