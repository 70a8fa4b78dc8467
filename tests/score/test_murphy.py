"""The binned Brier decomposition: exact to 1e-12, hand-worked, and Murphy's own case."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluria.score import brier, corp, murphy, murphy_brier


@st.composite
def forecasts(draw):
    n, bins = draw(st.integers(1, 60)), draw(st.integers(1, 12))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    f = torch.rand(n, generator=generator, dtype=torch.float64)
    return f, torch.rand(n, generator=generator) < draw(st.floats(0, 1)), bins


def drawn(n=500, c=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    log_probs = (1.5 * torch.randn(n, c, generator=generator, dtype=torch.float64)).log_softmax(-1)
    return log_probs, torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]


def total(parts):
    return parts.reliability - parts.resolution + parts.uncertainty + parts.within


@settings(max_examples=80, deadline=None)
@given(forecasts())
def test_the_identity_is_exact_for_any_bins(case):
    f, o, bins = case
    parts = murphy(f, o, bins=bins)
    assert parts.score == pytest.approx((f - o.double()).square().mean().item(), abs=1e-14)
    assert total(parts) == pytest.approx(parts.score, abs=1e-12)
    assert min(parts.reliability, parts.resolution, parts.uncertainty) >= 0


@pytest.mark.parametrize("bins", [1, 3, 10, 100])
def test_the_multi_class_identity_is_exact(bins):
    log_probs, y = drawn()
    parts = murphy_brier(log_probs, y, bins=bins)
    assert parts.score == pytest.approx(brier(log_probs, y).mean().item(), abs=1e-12)
    assert total(parts) == pytest.approx(parts.score, abs=1e-12)
    columns = [murphy(log_probs.exp()[:, c], y == c, bins=bins) for c in range(5)]
    for name in ("score", "reliability", "resolution", "uncertainty", "within"):
        assert getattr(parts, name) == pytest.approx(sum(getattr(one, name) for one in columns), abs=1e-12)


def test_hand_worked_parts():
    # Bins [0, .5) with f .1 .3, o 0 1 and [.5, 1] with f .6 1, o 1 1.
    parts = murphy(torch.tensor([0.1, 0.3, 0.6, 1.0], dtype=torch.float64), torch.tensor([0, 1, 1, 1]), bins=2)
    assert parts.score == pytest.approx((0.01 + 0.49 + 0.16 + 0) / 4)
    assert parts.reliability == pytest.approx((0.3**2 + 0.2**2) / 2)
    assert parts.resolution == pytest.approx(0.25**2)
    assert parts.uncertainty == pytest.approx(0.75 * 0.25)
    # Variances .01 and .04, covariance .05 in the first bin only.
    assert parts.within == pytest.approx((0.01 + 0.04) / 2 - 2 * 0.05 / 2)


def test_without_spread_inside_the_bins_murphys_three_terms_are_enough():
    f = torch.tensor([0.2, 0.2, 0.6, 0.6, 0.6], dtype=torch.float64)
    o = torch.tensor([0, 1, 1, 0, 1])
    parts = murphy(f, o, bins=10)
    assert parts.within == pytest.approx(0.0, abs=1e-15)
    assert parts.score == pytest.approx(parts.reliability - parts.resolution + parts.uncertainty, abs=1e-15)
    assert parts.uncertainty == pytest.approx(corp(f, o).uncertainty, abs=1e-15)


def test_what_is_refused():
    half = torch.tensor([0.5, 0.5])
    for f, o in ((half, torch.tensor([1])), (half[:0], half[:0]), (half[:, None, None], half[:, None, None])):
        with pytest.raises(ValueError, match="not empty"):
            murphy(f, o)
    for f, o in ((half + 1, torch.tensor([0, 1])), (half, torch.tensor([0, 2])), (half * torch.nan, torch.ones(2))):
        with pytest.raises(ValueError, match="0 or 1"):
            murphy(f, o)
    with pytest.raises(ValueError, match="bins"):
        murphy(half, torch.tensor([0, 1]), bins=0)
    with pytest.raises(ValueError, match="no row"):
        murphy_brier(torch.zeros(1, 2).log_softmax(-1), torch.tensor([-100]))
