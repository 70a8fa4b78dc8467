"""Conformal shifts: hand-worked, against a slow loop, and the coverage they promise."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

from pluria.pool.conformal import Conformal, fit_conformal
from pluria.score import coverage

LEVELS = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
NAN = float("nan")


def drawn(n=500, width=0.5, seed=0):
    """Quantiles of a law whose scale is `width` times the true one, which grows with the row's size."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.rand(n, generator=generator, dtype=torch.float64) * 9 + 1
    y = size * torch.randn(n, generator=generator, dtype=torch.float64)
    return size[:, None] * torch.distributions.Normal(0.0, width).icdf(LEVELS.to(torch.float64)), y, size


def test_shifts_equal_a_slow_loop_and_gaps_do_not_count():
    q, y, size = drawn(101)
    q[3, 0], y[7] = NAN, NAN
    fitted = fit_conformal(q, y, LEVELS, scale=size)
    for pair, covered in ((0, 0.9), (1, 0.5)):
        rows = torch.stack([q[:, pair], q[:, 4 - pair], y, size], -1).tolist()
        scores = [max(low - t, t - high) / c for low, high, t, c in rows]
        kept = sorted(score for score in scores if not math.isnan(score))
        assert len(kept) == (99, 100)[pair]
        assert fitted.shifts[pair] == kept[math.ceil(covered * (len(kept) + 1) - 1e-9) - 1]


def test_intervals_move_both_ends_and_the_median_stays():
    moved = Conformal((0.05, 0.25, 0.5, 0.75, 0.95), (2.0, -1.0))(torch.tensor([[0.0, 2.0, 5.0, 8.0, NAN]]))
    assert moved[0].tolist() == pytest.approx([-2.0, 3.0, 5.0, 7.0, NAN], nan_ok=True)
    assert moved.dtype is torch.float32
    scaled = Conformal((0.05, 0.95), (1.0,))(torch.zeros(3, 2, 2), torch.tensor([1.0, 3.0]))
    assert scaled[2].tolist() == [[-1.0, 1.0], [-3.0, 3.0]]


@pytest.mark.parametrize("width", [0.5, 2.0])
def test_narrow_and_wide_quantiles_come_to_cover_what_they_say(width):
    q, y, size = drawn(4000, width)
    wanted = torch.tensor([0.9, 0.5], dtype=torch.float64)
    assert bool(((coverage(q, y) - wanted).abs() > 0.09).all())
    fitted = fit_conformal(q[:2000], y[:2000], LEVELS, scale=size[:2000])
    adjusted = fitted(q[2000:], size[2000:])
    torch.testing.assert_close(coverage(adjusted, y[2000:]), wanted, atol=0.03, rtol=0)
    # On its own rows the shift is exact: k of n scores lie at or below it.
    assert bool((coverage(fitted(q[:2000], size[:2000]), y[:2000]) >= wanted).all())


def test_fields_go_through_json():
    fitted = fit_conformal(*drawn(100)[:2], LEVELS)
    assert Conformal(**json.loads(json.dumps(dataclasses.asdict(fitted)))) == fitted


def test_refusals():
    q, y, size = drawn(48)
    levels = torch.tensor([0.01, 0.25, 0.5, 0.75, 0.99])
    with pytest.raises(ValueError, match=r"98.0% needs 49 complete rows, not 48"):
        fit_conformal(q, y, levels)
    fit_conformal(torch.cat([q, q[:1]]), torch.cat([y, y[:1]]), levels)
    with pytest.raises(ValueError, match="5 levels have 2 shifts, not 1"):
        Conformal((0.05, 0.25, 0.5, 0.75, 0.95), (2.0,))
    with pytest.raises(ValueError, match="pairs around 1/2"):
        fit_conformal(q[:, 1:], y, levels[1:])
    with pytest.raises(ValueError, match="levels must increase"):  # ends of an interval the wrong way round
        fit_conformal(q.flip(-1), y, levels.flip(0))
    with pytest.raises(ValueError, match="do not fit"):
        fit_conformal(q, y[1:], levels)
    with pytest.raises(ValueError, match=r"scale must be positive and \[48\]"):
        fit_conformal(q, y, LEVELS, scale=-size)
    with pytest.raises(ValueError, match=r"must be \[..., N, 5\]"):
        fit_conformal(q, y, LEVELS)(q[:, 1:])
