"""Extremised mean: the factor by hand, temperature as its case, and forecasters who know the same or not."""

import math

import pytest
import torch
from torch.nn.functional import nll_loss

from pluria.pool import Extremised, fit_extremised, fit_temperature, mean_probability, median_probability


def forecasters(shared, private, n=20_000, members=12, seed=0):
    """Calibrated log-odds [K, N, 2] from evidence that all have and evidence of each one's own; and what happened."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (n,), generator=generator)
    side = (2 * y - 1).double()

    def evidence(size, *shape):
        # Log-odds of a Gaussian signal: mean size^2 / 2 on the side of the truth, variance size^2.
        return side * size**2 / 2 + size * torch.randn(*shape, generator=generator, dtype=torch.float64)

    odds = evidence(shared, n) + evidence(private, members, n)
    return torch.stack([torch.zeros_like(odds), odds], dim=-1).log_softmax(-1), y


def test_hand_worked_push_from_a_base():
    # logit p = logit b + 2 (logit m - logit b): odds 1/9, mean 1/4 : 9/4 times the base, so 81/16 times 1/9 = 9/16.
    rows = torch.tensor([[[0.8, 0.2]]], dtype=torch.float64).log()
    pooled = Extremised(2.0, base=(0.9, 0.1))(rows).exp()
    assert pooled[0].tolist() == pytest.approx([16 / 25, 9 / 25])
    assert Extremised(0.0, base=(0.9, 0.1))(rows).exp()[0].tolist() == pytest.approx([0.9, 0.1])
    torch.testing.assert_close(Extremised(1.0, base=(0.9, 0.1))(rows), rows[0])


def test_without_a_base_it_is_a_temperature_on_the_mean():
    rows, y = forecasters(0.5, 1.0, n=2000)
    temperature = fit_temperature(mean_probability(rows), y)
    fitted = fit_extremised(rows, y)
    assert fitted.factor == pytest.approx(1 / temperature.value, rel=1e-7)
    torch.testing.assert_close(fitted(rows), temperature(mean_probability(rows)), rtol=1e-6, atol=1e-9)
    equal = fit_extremised(rows, y, base=[5.0, 5.0])
    assert equal.factor == pytest.approx(fitted.factor, rel=1e-9)
    assert equal.base == (0.5, 0.5)


def test_the_median_is_pushed_and_a_wild_member_does_not_move_it():
    # odds 1, 4 and 1/999: the median's are 1, the second and the third member's mean is not looked at.
    rows = torch.tensor([[[0.5, 0.5]], [[0.2, 0.8]], [[0.999, 0.001]]], dtype=torch.float64).log()
    assert Extremised(3.0, pool="median_probability")(rows).exp()[0].tolist() == pytest.approx([0.5, 0.5])
    # Pushed twice from a base of 1/3: odds 1 over 2 of the base is 2, so 2 * 2 times 1/2.
    pushed = Extremised(2.0, (2 / 3, 1 / 3), pool="median_probability")(rows).exp()
    assert pushed[0].tolist() == pytest.approx([1 / 3, 2 / 3])
    rows, y = forecasters(0.5, 1.0, n=2000, members=5)
    fitted = fit_extremised(rows, y, pool="median_probability")
    temperature = fit_temperature(median_probability(rows), y)
    assert fitted.pool == "median_probability"
    assert fitted.factor == pytest.approx(1 / temperature.value, rel=1e-7)


def test_a_target_that_the_median_holds_impossible_is_refused():
    y = torch.zeros(20, dtype=torch.long)
    rows = torch.tensor([[0.5, 0.5], [0.0, 1.0], [0.0, 1.0]], dtype=torch.float64).log()[:, None].expand(3, 20, 2)
    assert fit_extremised(rows, y).factor >= 0
    with pytest.raises(ValueError, match="median_probability holds the target"):
        fit_extremised(rows, y, pool="median_probability")
    with pytest.raises(ValueError, match="one of mean_probability, median_probability; got 'mode'"):
        fit_extremised(rows, y, pool="mode")


def test_own_evidence_wants_a_push_and_shared_evidence_none():
    own, shared = (fit_extremised(*forecasters(*sizes)).factor for sizes in ((0.5, 1.0), (1.5, 0.1)))
    assert own > 2
    assert shared == pytest.approx(1.0, abs=0.08)


def test_the_fitted_factor_is_the_best():
    rows, y = forecasters(0.5, 0.7, n=1000)
    base = [0.3, 0.7]
    fitted = fit_extremised(rows, y, base=base)
    losses = [nll_loss(Extremised(fitted.factor * f, base)(rows), y).item() for f in (0.9, 0.999, 1.0, 1.001, 1.1)]
    assert min(losses) == losses[2]


def test_weights_of_the_mean_and_impossible_classes():
    rows, y = forecasters(0.5, 0.7, n=100, members=2)
    pool = fit_extremised(rows, y)
    torch.testing.assert_close(pool(rows, torch.tensor([1.0, 0.0])), pool(rows[:1]))
    wider = torch.cat([rows, torch.full((2, 100, 1), -torch.inf)], dim=-1)
    assert fit_extremised(wider, y).factor == pytest.approx(pool.factor, rel=1e-6)
    assert Extremised(0.0)(wider).exp()[0].tolist() == pytest.approx([1 / 3] * 3)


def test_a_fit_that_runs_away_says_so():
    y = torch.arange(20) % 2
    right = torch.nn.functional.one_hot(y, 2).double()[None]
    assert fit_extremised(right, y) == Extremised(1000.0, None, clamped=True)
    assert fit_extremised(right, 1 - y).factor == pytest.approx(0.0, abs=1e-9)


def test_what_does_not_fit_is_refused():
    rows, y = forecasters(0.5, 0.7, n=30)
    for base in ([0.5, 0.0], [0.5, math.nan], [-1.0, 2.0]):
        with pytest.raises(ValueError, match="positive and finite"):
            fit_extremised(rows, y, base=base)
    with pytest.raises(ValueError, match="2 classes need as many"):
        fit_extremised(rows, y, base=[0.2, 0.3, 0.5])
    for factor in (-1.0, math.inf):
        with pytest.raises(ValueError, match="a factor must be"):
            Extremised(factor)
