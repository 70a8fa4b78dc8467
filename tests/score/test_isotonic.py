"""CORP: scikit-learn's isotonic regression, the exact identity, hand-worked parts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from pluria.score import brier, corp, corp_brier, corp_confidence, error, recalibrated


@st.composite
def forecasts(draw):
    n = draw(st.integers(1, 40))
    grid = draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))
    outcomes = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return torch.tensor(grid, dtype=torch.float64) / 8, torch.tensor(outcomes)


@settings(max_examples=80, deadline=None)
@given(forecasts())
def test_isotonic_regression_equals_scikit_learn_with_ties(case):
    f, o = case
    fitted = IsotonicRegression().fit_transform(f.numpy(), o.double().numpy())
    torch.testing.assert_close(recalibrated(f, o), torch.from_numpy(fitted), rtol=1e-9, atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(forecasts())
def test_the_identity_is_exact_and_the_parts_are_not_negative(case):
    f, o = case
    parts = corp(f, o)
    assert parts.score == pytest.approx((f - o.double()).square().mean().item(), abs=1e-15)
    assert parts.miscalibration - parts.discrimination + parts.uncertainty == pytest.approx(parts.score, abs=1e-12)
    rate = o.double().mean().item()
    assert parts.uncertainty == pytest.approx(rate * (1 - rate), abs=1e-12)
    assert parts.miscalibration >= -1e-12
    assert parts.discrimination >= -1e-12


def test_hand_worked_parts():
    # Sorted outcomes 0 1 0 1 are pooled to 0 .5 .5 1: best score .125, constant .25.
    parts = corp(torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64), torch.tensor([0, 1, 0, 1]))
    assert recalibrated(torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([0, 1, 0, 1])).tolist() == [0, 0.5, 0.5, 1]
    assert parts.score == pytest.approx((0.01 + 0.64 + 0.09 + 0.36) / 4)
    assert parts.miscalibration == pytest.approx(parts.score - 0.125)
    assert parts.discrimination == pytest.approx(0.125)


def test_recalibrated_forecasts_are_calibrated():
    generator = torch.Generator().manual_seed(0)
    f = torch.rand(300, generator=generator, dtype=torch.float64)
    o = torch.rand(300, generator=generator) < f**2
    once = recalibrated(f, o)
    assert corp(f, o).miscalibration > 0.01
    assert corp(once, o).miscalibration == pytest.approx(0.0, abs=1e-12)
    assert corp(once, o).discrimination == pytest.approx(corp(f, o).discrimination, abs=1e-12)


def test_classes_and_confidence():
    generator = torch.Generator().manual_seed(1)
    log_probs = torch.randn(200, 4, generator=generator, dtype=torch.float64).log_softmax(-1)
    y = torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]
    y[::5] = -100
    parts = corp_brier(log_probs, y)
    assert parts.score == pytest.approx(brier(log_probs, y).mean().item(), abs=1e-12)
    assert parts.miscalibration - parts.discrimination + parts.uncertainty == pytest.approx(parts.score, abs=1e-12)
    rate = error(log_probs, y).mean().item()
    assert corp_confidence(log_probs, y).uncertainty == pytest.approx(rate * (1 - rate), abs=1e-12)


def test_what_is_refused():
    half = torch.tensor([0.5, 0.5])
    for f, o in ((half, half[:1]), (half[:0], half[:0]), (half[None], half[None])):
        with pytest.raises(ValueError, match=r"both be \[N\]"):
            corp(f, o)
    with pytest.raises(ValueError, match="finite"):
        corp(torch.tensor([0.5, torch.nan]), half)
    with pytest.raises(ValueError, match="probabilities"):
        corp(torch.tensor([0.5, 1.5]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="0 or 1"):
        corp(half, torch.tensor([0, 2]))
