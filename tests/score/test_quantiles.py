"""Quantile scores: hand-worked, against slow loops and scoringrules; gaps count nowhere."""

from __future__ import annotations

import math

import pytest
import torch

from pluria.score import (
    below,
    coverage,
    crossing_share,
    gaussian_crps,
    pinball,
    present,
    quantile_crps,
    quantile_scores,
    tally,
    weighted_interval_score,
)

LEVELS = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
NAN = float("nan")


def drawn(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    forecasts = torch.randn(n, 5, generator=generator, dtype=torch.float64).sort(-1).values
    return forecasts, torch.randn(n, generator=generator, dtype=torch.float64)


def slow_interval_score(q, y):
    """Bracher et al. written out: (|y - m| / 2 + sum_k a_k / 2 IS_k) / (K + 1/2), in three parts."""
    parts = [0.0, max(y - q[2], 0.0) / 2, max(q[2] - y, 0.0) / 2]
    for low, high, alpha in ((0, 4, 0.1), (1, 3, 0.5)):
        parts[0] += alpha / 2 * (q[high] - q[low])
        parts[1] += alpha / 2 * 2 / alpha * max(y - q[high], 0.0)
        parts[2] += alpha / 2 * 2 / alpha * max(q[low] - y, 0.0)
    return [part / 2.5 for part in parts]


def test_pinball_equals_scoringrules_and_a_loop(scoringrules):
    q, y = drawn()
    wanted = scoringrules.quantile_score(y.numpy()[:, None], q.numpy(), LEVELS.numpy()[None])
    torch.testing.assert_close(pinball(q, y, LEVELS), torch.from_numpy(wanted), rtol=1e-12, atol=1e-12)
    slow = [[(a if t >= v else a - 1) * (t - v) for v, a in zip(r, LEVELS.tolist(), strict=True)]
            for r, t in zip(q.tolist(), y.tolist(), strict=True)]  # fmt: skip
    torch.testing.assert_close(pinball(q, y, LEVELS), torch.tensor(slow, dtype=torch.float64))


def test_crps_of_quantiles_equals_scoringrules_and_nears_the_law(scoringrules):
    q, y = drawn()
    uneven = torch.tensor([0.05, 0.2, 0.3, 0.75, 0.9], dtype=torch.float64)
    wanted = scoringrules.crps_quantile(y.numpy(), q.numpy(), uneven.numpy())
    torch.testing.assert_close(quantile_crps(q, y, uneven), torch.from_numpy(wanted), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(quantile_crps(q, y, LEVELS), weighted_interval_score(q, y, LEVELS).total)
    fine = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
    law = torch.distributions.Normal(0.0, 1.0).icdf(fine).expand(len(y), 2000)
    closed = gaussian_crps(torch.zeros_like(y), torch.ones_like(y), y)
    torch.testing.assert_close(quantile_crps(law, y, fine), closed, rtol=0, atol=1e-3)
    q[0, 1] = NAN
    assert quantile_crps(q, y, LEVELS).isnan().tolist() == [True] + [False] * 39


def test_the_weighted_interval_score_equals_its_definition():
    q, y = drawn()
    score = weighted_interval_score(q, y, LEVELS)
    slow = [slow_interval_score(row, t) for row, t in zip(q.tolist(), y.tolist(), strict=True)]
    fast = torch.stack([score.dispersion, score.under, score.over], -1)
    torch.testing.assert_close(fast, torch.tensor(slow, dtype=torch.float64), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("levels", [LEVELS, LEVELS[[0, 1, 3, 4]], LEVELS[[2]]])
def test_the_parts_sum_to_twice_the_mean_pinball_even_where_quantiles_cross(levels):
    q = torch.randn(3, 20, len(levels), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    y = drawn(20)[1]
    total = weighted_interval_score(q, y, levels).total
    torch.testing.assert_close(total, 2 * pinball(q, y, levels).mean(-1), rtol=1e-12, atol=1e-12)


def test_one_interval_equals_scoringrules(scoringrules):
    q, y = drawn()
    score = weighted_interval_score(q[:, [0, 4]], y, LEVELS[[0, 4]]).total
    wanted = scoringrules.interval_score(y.numpy(), q[:, 0].numpy(), q[:, 4].numpy(), 0.1)
    torch.testing.assert_close(score, torch.from_numpy(wanted) * 0.1 / 2, rtol=1e-12, atol=1e-12)


def test_gaps_stay_gaps():
    q, y = drawn(4)
    q[1, 2], y[3] = NAN, NAN
    there = torch.ones(4, 5, dtype=torch.bool)
    there[1, 2], there[3] = False, False
    assert torch.equal(present(q, y), there)
    assert torch.equal(~pinball(q, y, LEVELS).isnan(), there)
    score = weighted_interval_score(q, y, LEVELS)
    for part in (score.dispersion, score.under, score.over, score.total):
        assert part.isnan().tolist() == [False, True, False, True]


def test_shares_are_those_of_a_loop():
    q, y = drawn(60)
    q[torch.rand(60, 5, generator=torch.Generator().manual_seed(2)) < 0.3] = NAN
    y[5] = NAN
    rows = [(r, t) for r, t in zip(q.tolist(), y.tolist(), strict=True) if not math.isnan(t)]
    for level in range(5):
        hits = [t <= r[level] for r, t in rows if not math.isnan(r[level])]
        assert below(q, y)[level].item() == pytest.approx(sum(hits) / len(hits))
    for place in range(2):
        ends = [(r[place], r[4 - place], t) for r, t in rows]
        inside = [low <= t <= high for low, high, t in ends if not (math.isnan(low) or math.isnan(high))]
        assert coverage(q, y)[place].item() == pytest.approx(sum(inside) / len(inside))
    assert crossing_share(q) == 0.0


def test_calibrated_quantiles_cover_what_they_say():
    y = torch.randn(20000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    q = torch.distributions.Normal(0.0, 1.0).icdf(LEVELS).expand(20000, 5)
    torch.testing.assert_close(below(q, y), LEVELS, atol=0.015, rtol=0)
    torch.testing.assert_close(coverage(q, y), torch.tensor([0.9, 0.5], dtype=torch.float64), atol=0.015, rtol=0)


def test_crossings_are_found_over_a_gap():
    q = torch.tensor([[[0.0, 1.0, 2.0], [2.0, NAN, 1.0], [NAN, NAN, NAN], [0.0, 0.0, 0.0]]])
    assert crossing_share(q).tolist() == [pytest.approx(1 / 3)]
    assert crossing_share(q[:, 2:3]).isnan().all()


def test_shards_add_up_and_gaps_do_not_count():
    q, y = drawn()
    q[3, 1], q[7] = NAN, q[7].flip(0)
    scores = quantile_scores(LEVELS)
    whole = tally(scores, q, y).figures()
    parts = (tally(scores, q[:11], y[:11]) + tally(scores, q[11:], y[11:])).figures()
    assert parts == pytest.approx(whole, rel=1e-12)
    score = weighted_interval_score(q, y, LEVELS)
    assert whole["wis"] == pytest.approx(score.total.nanmean().item(), rel=1e-12)
    assert whole["wis"] == pytest.approx(whole["dispersion"] + whole["under"] + whole["over"], rel=1e-12)
    assert whole["crossing"] == pytest.approx(1 / 39)


def test_the_truth_has_the_least_pinball_loss():
    y = torch.randn(4000, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    truth = torch.distributions.Normal(0.0, 1.0).icdf(LEVELS).expand(4000, 5)
    best = pinball(truth, y, LEVELS).mean(0)
    for shift in (-0.3, 0.3):
        assert bool((pinball(truth + shift, y, LEVELS).mean(0) > best).all())


def test_refusals():
    q, y = drawn()
    with pytest.raises(ValueError, match=r"do not fit: \[40, 5\] and \[39\]"):
        pinball(q, y[1:], LEVELS)
    with pytest.raises(ValueError, match="must be finite; mark what is missing with NaN"):
        pinball(q.index_fill(0, torch.tensor([0]), torch.inf), y, LEVELS)
    with pytest.raises(ValueError, match=r"levels must be \[5\]"):
        pinball(q, y, LEVELS[1:])
    with pytest.raises(ValueError, match="must increase inside"):
        pinball(q, y, LEVELS.flip(0))
    with pytest.raises(ValueError, match="symmetric around 1/2"):
        weighted_interval_score(q[:, 1:], y, LEVELS[1:])
