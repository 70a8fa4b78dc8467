"""Budgets add up; the deep-ensemble equivalent interpolates and says where it is clamped."""

import math

import pytest

from pluria.score import Cost, Equivalent, deep_ensemble_equivalent

CURVE = [0.651, 0.614, 0.601, 0.594]


def test_costs_add_up():
    one, two = Cost(1.0, 320, 200, 0.5, 10), Cost(0.2, 32, 16, 0.25, 0)
    assert one + two == Cost(1.2, 352, 216, 0.75, 10)


@pytest.mark.parametrize("name", ["forwards", "bits_literature", "bits_stored", "seconds", "backward_passes"])
@pytest.mark.parametrize("value", [-1, math.nan, math.inf])
def test_a_cost_is_finite_and_not_negative(name, value):
    with pytest.raises(ValueError, match=name):
        Cost(**{name: value})


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_the_curve_is_its_own_equivalent(size):
    found = deep_ensemble_equivalent(CURVE, CURVE[size - 1])
    assert (found.size, found.clamped) == (pytest.approx(size), "no")


def test_it_interpolates_between_sizes():
    assert deep_ensemble_equivalent(CURVE, (0.651 + 0.614) / 2).size == pytest.approx(1.5)
    assert deep_ensemble_equivalent(CURVE, 0.614 - 0.25 * 0.013).size == pytest.approx(2.25)


def test_log_likelihoods_give_the_same_size():
    higher = deep_ensemble_equivalent([-loss for loss in CURVE], -0.6, better="higher")
    assert higher == deep_ensemble_equivalent(CURVE, 0.6)


def test_it_says_where_it_is_clamped():
    assert deep_ensemble_equivalent(CURVE, 0.7) == Equivalent(1.0, "below")
    assert deep_ensemble_equivalent(CURVE, 0.5) == Equivalent(4.0, "above")


def test_a_noisy_curve_gives_the_smallest_size_that_reaches_the_value():
    assert deep_ensemble_equivalent([0.6, 0.5, 0.55, 0.4], 0.5).size == pytest.approx(2.0)
    assert deep_ensemble_equivalent([0.6, 0.5, 0.55, 0.4], 0.45).size == pytest.approx(3 + 0.1 / 0.15)
    assert deep_ensemble_equivalent([0.6, 0.6, 0.5], 0.55).size == pytest.approx(2.5)


def test_what_is_refused():
    for curve, value in (([], 0.5), ([0.6, math.nan], 0.5), (CURVE, math.inf)):
        with pytest.raises(ValueError, match="at least one size"):
            deep_ensemble_equivalent(curve, value)
    with pytest.raises(ValueError, match="better"):
        deep_ensemble_equivalent(CURVE, 0.6, better="less")
