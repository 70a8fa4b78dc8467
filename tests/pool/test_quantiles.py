"""Pools of quantiles: hand-worked, against slow loops; gaps, crossings and their repair against scikit-learn."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.isotonic import IsotonicRegression

from pluria.pool.quantiles import isotonic_quantiles, mean_quantiles, median_quantiles, sort_quantiles
from pluria.score import pinball

NAN = float("nan")
LEVELS = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)


def drawn(k=5, n=12, gaps=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(k, n, 5, generator=generator, dtype=torch.float64)
    outputs[torch.rand(k, n, 5, generator=generator) < gaps] = NAN
    return outputs, torch.rand(k, n, generator=generator, dtype=torch.float64)


def slow_mean(cells):
    return sum(w * v for v, w in cells) / sum(w for _, w in cells)


def slow_median(cells):
    """Halfway between the least value with half of the weight at or below it and the greatest at or above it."""
    total = sum(w for _, w in cells)
    low = min(v for v, _ in cells if sum(w for u, w in cells if u <= v) >= total / 2)
    high = max(v for v, _ in cells if sum(w for u, w in cells if u >= v) >= total / 2)
    return (low + high) / 2


@pytest.mark.parametrize(("pool", "slow"), [(mean_quantiles, slow_mean), (median_quantiles, slow_median)])
def test_cell_by_cell_over_the_members_that_are_there(pool, slow):
    outputs, weights = drawn()
    pooled = pool(outputs, weights)
    for n in range(12):
        for level in range(5):
            column = zip(outputs[:, n, level].tolist(), weights[:, n].tolist(), strict=True)
            cells = [(v, w) for v, w in column if not math.isnan(v)]
            assert (
                pooled[n, level].item() == pytest.approx(slow(cells), rel=1e-12) if cells else pooled[n, level].isnan()
            )


def test_the_median_equals_torch_with_equal_weights():
    outputs, _ = drawn(gaps=0.0)
    assert torch.equal(median_quantiles(outputs), outputs.median(0).values)
    even = outputs[:4].sort(0).values
    torch.testing.assert_close(median_quantiles(outputs[:4]), (even[1] + even[2]) / 2)
    # Three tenths and six tenths differ in their last bit from halves of their sum.
    thirds = torch.tensor([[[1.0]], [[2.0]], [[3.0]]], dtype=torch.float64)
    assert median_quantiles(thirds, torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)).item() == 2.5


@pytest.mark.parametrize("pool", [mean_quantiles, median_quantiles])
def test_members_without_weight_and_cells_without_members(pool):
    outputs = torch.tensor([[[1.0, NAN]], [[5.0, NAN]], [[torch.inf, 7.0]]])
    assert pool(outputs, torch.tensor([1.0, 1.0, 0.0]))[0].tolist() == pytest.approx([3.0, NAN], nan_ok=True)
    with pytest.raises(ValueError, match="positive sum for every example"):
        pool(outputs, torch.zeros(3))


def test_vincent_average_keeps_the_width_of_normal_laws():
    normal = torch.distributions.Normal
    outputs = torch.stack([normal(m, s).icdf(LEVELS) for m, s in ((0.0, 1.0), (10.0, 3.0))])[:, None]
    torch.testing.assert_close(mean_quantiles(outputs)[0], normal(5.0, 2.0).icdf(LEVELS))


def test_the_mean_crosses_where_levels_stand_for_other_members():
    outputs = torch.tensor([[[1.0, 2.0]], [[5.0, NAN]]])
    assert mean_quantiles(outputs)[0].tolist() == [3.0, 2.0]


@pytest.mark.parametrize("repair", [sort_quantiles, isotonic_quantiles])
def test_repairs_order_rows_and_leave_gaps_and_ordered_rows(repair):
    rows = drawn()[0][0]
    fixed = repair(rows)
    assert torch.equal(fixed.isnan(), rows.isnan())
    for row in fixed:
        assert bool((row[~row.isnan()].diff() >= 0).all())
    assert torch.equal(repair(fixed).nan_to_num(), fixed.nan_to_num())
    ordered = drawn(gaps=0.0)[0].sort(-1).values
    assert torch.equal(repair(ordered), ordered)
    assert repair(rows.float()).dtype is torch.float32


def test_sorting_equals_sorting_what_is_there():
    rows = drawn()[0][0]
    for row, fixed in zip(rows, sort_quantiles(rows), strict=True):
        assert fixed[~fixed.isnan()].tolist() == sorted(row[~row.isnan()].tolist())


def test_isotonic_equals_scikit_learn():
    rows = drawn(n=60)[0][0]
    for row, fixed in zip(rows, isotonic_quantiles(rows), strict=True):
        kept = row[~row.isnan()]
        if len(kept):
            wanted = torch.from_numpy(IsotonicRegression().fit_transform(range(len(kept)), kept.numpy()))
            torch.testing.assert_close(fixed[~fixed.isnan()], wanted, rtol=1e-12, atol=1e-12)


def test_isotonic_is_the_same_in_blocks(monkeypatch):
    rows = drawn(n=60, gaps=0.0)[0]
    whole = isotonic_quantiles(rows)
    monkeypatch.setattr("pluria.pool.quantiles._AT_ONCE", 60)
    assert torch.equal(isotonic_quantiles(rows), whole)


@pytest.mark.parametrize("repair", [sort_quantiles, isotonic_quantiles])
def test_repairs_never_raise_the_pinball_loss_of_a_row(repair):
    rows = drawn(n=300, gaps=0.0)[0][0]
    y = torch.randn(300, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    before, after = (pinball(q, y, LEVELS).mean(-1) for q in (rows, repair(rows)))
    assert bool((after <= before + 1e-12).all())
    assert after.mean() < before.mean() - 0.05
