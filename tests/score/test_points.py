"""Drawn points: what a draw holds, draws of one deal share no row, the law of the counts."""

import pytest
import torch

from pluria.score import Points, draw_points


def test_few_anchors_repeat_and_counts_add_up():
    points = draw_points(7, tau=5, anchors=2)
    assert points.examples.shape == points.times.shape == (3, 2)
    assert points.tau == 5
    assert points.times.sum(1).tolist() == [5, 5, 5]
    assert len(points.examples.unique()) == 6


def test_different_points_are_all_different():
    points = draw_points(23, tau=4, anchors=None)
    assert points.examples.shape == (5, 4)
    assert points.times.tolist() == [[1] * 4] * 5
    assert len(points.examples.unique()) == 20


def test_counts_are_binomial_and_rows_come_equally_often():
    points = draw_points(10, tau=4, anchors=2, draws=20000)
    shares = torch.bincount(points.times[:, 0], minlength=5) / 20000
    expected = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    assert (shares - expected).abs().max() < 0.015
    assert torch.bincount(points.examples.flatten()).tolist() == [4000] * 10


@pytest.mark.parametrize("anchors", [2, None])
def test_the_first_draws_stay_and_the_seed_decides(anchors):
    long, short = (draw_points(9, tau=3, anchors=anchors, draws=draws, seed=1) for draws in (30, 5))
    assert torch.equal(long.examples[:5], short.examples)
    assert torch.equal(long.times[:5], short.times)
    other = draw_points(9, tau=3, anchors=anchors, draws=30, seed=2)
    assert not torch.equal(other.examples, long.examples)


def test_the_global_generator_is_untouched():
    before = torch.get_rng_state()
    draw_points(100)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("options", [{"tau": 0}, {"tau": 0, "anchors": None}, {"anchors": 0}, {"draws": 0}])
def test_numbers_below_one_are_refused(options):
    with pytest.raises(ValueError, match="at least 1"):
        draw_points(20, **options)


def test_more_anchors_than_rows_are_refused():
    assert draw_points(2, anchors=2).examples.shape == (1, 2)
    with pytest.raises(ValueError, match="takes 3 different examples, but there are 2"):
        draw_points(2, anchors=3)
    with pytest.raises(ValueError, match="takes 10 different examples, but there are 9"):
        draw_points(9, anchors=None)


@pytest.mark.parametrize(
    ("examples", "times", "message"),
    [
        ([0, 1], [1, 1], r"\[R, A\]"),
        ([[0, 1]], [[1]], r"\[R, A\]"),
        ([[]], [[]], "not empty"),
        ([[0.0, 1.0]], [[1, 1]], "int64"),
        ([[-1, 1]], [[1, 1]], "not be negative"),
        ([[0, 1]], [[2, -1]], "not be negative"),
        ([[0, 1]], [[0, 0]], "at least 1"),
        ([[0, 1], [2, 3]], [[1, 1], [2, 1]], "draws of 2 and 3"),
        ([[0, 1], [3, 3]], [[1, 1], [1, 1]], "twice"),
    ],
)
def test_what_points_refuse(examples, times, message):
    with pytest.raises(ValueError, match=message):
        Points(torch.tensor(examples), torch.tensor(times))
