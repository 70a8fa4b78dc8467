"""CRPS of normal laws and their mixtures: scoringrules, the limits, and the integral of its definition."""

import math

import pytest
import torch

from pluria.score import crps, gaussian_crps, mixture_crps


def drawn(k=4, n=25, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mean, spread = torch.randn(2, k, n, generator=generator, dtype=torch.float64)
    return mean, spread.square() + 0.05, torch.randn(n, generator=generator, dtype=torch.float64)


def test_scoringrules_agrees(scoringrules):
    mean, variance, y = drawn()
    wanted = scoringrules.crps_normal(y.numpy(), mean[0].numpy(), variance[0].sqrt().numpy())
    torch.testing.assert_close(gaussian_crps(mean[0], variance[0], y), torch.from_numpy(wanted), rtol=1e-12, atol=1e-12)
    weights = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    laws = (mean.T.numpy(), variance.sqrt().T.numpy(), weights.expand(25, 4).numpy())
    wanted = scoringrules.crps_mixnorm(y.numpy(), *laws)
    found = mixture_crps(mean, variance, y, 7 * weights)
    torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=1e-10, atol=1e-12)


def test_equals_the_integral_of_the_definition():
    mean, variance, y = drawn(k=2, n=3)
    grid = torch.linspace(-12, 12, 240_001, dtype=torch.float64)
    law = torch.distributions.Normal(mean[..., None], variance.sqrt()[..., None])
    gap = law.cdf(grid).mean(0) - (y[:, None] <= grid).double()
    integral = torch.trapezoid(gap.square(), grid)
    torch.testing.assert_close(mixture_crps(mean, variance, y), integral, rtol=0, atol=1e-4)


def test_hand_worked_and_at_the_truth():
    at_mean = gaussian_crps(torch.zeros(1), torch.ones(1), torch.zeros(1)).item()
    assert at_mean == pytest.approx((math.sqrt(2) - 1) / math.sqrt(math.pi), abs=1e-12)
    y = torch.randn(40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    own, wide, off = (
        gaussian_crps(torch.full_like(y, m), torch.full_like(y, v), y).mean() for m, v in ((0, 1), (0, 2), (0.5, 1))
    )
    assert own < wide
    assert own < off
    assert own.item() == pytest.approx(1 / math.sqrt(math.pi), rel=0.02)


def test_without_variance_it_is_the_crps_of_the_ensemble():
    mean, variance, y = drawn()
    weights = torch.tensor([1.0, 0.0, 2.0, 3.0])
    found = mixture_crps(mean, torch.zeros_like(variance), y, weights)
    torch.testing.assert_close(found, crps(mean, y, weights), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gaussian_crps(mean[0], variance[0] * 0, y), (mean[0] - y).abs(), rtol=0, atol=1e-15)
    assert gaussian_crps(y, y * 0, y).abs().max().item() == 0


def test_laws_of_members():
    mean, variance, y = drawn()
    one = mixture_crps(mean, variance, y)
    torch.testing.assert_close(mixture_crps(mean.flip(0), variance.flip(0), y), one, rtol=1e-12, atol=1e-12)
    copies = mixture_crps(mean[:1].expand(3, 25), variance[:1].expand(3, 25), y)
    torch.testing.assert_close(copies, gaussian_crps(mean[0], variance[0], y), rtol=1e-12, atol=1e-12)
    absent = torch.cat([mean, torch.full((1, 25), torch.nan)]), torch.cat([variance, torch.full((1, 25), torch.nan)])
    torch.testing.assert_close(mixture_crps(*absent, y, torch.tensor([1.0, 1, 1, 1, 0])), one, rtol=1e-12, atol=1e-12)


def test_what_is_refused():
    mean, variance, y = drawn()
    with pytest.raises(ValueError, match="one shape"):
        gaussian_crps(mean[0], variance[0], y[:3])
    with pytest.raises(ValueError, match="do not fit"):
        mixture_crps(mean, variance[:2], y)
    with pytest.raises(ValueError, match="do not fit"):
        mixture_crps(mean, variance, y.long())
    for bad in (-variance, variance * torch.nan):
        with pytest.raises(ValueError, match="negative or NaN"):
            mixture_crps(mean, bad, y)
    with pytest.raises(ValueError, match="positive sum"):
        mixture_crps(mean, variance, y, torch.zeros(4))
