"""Mixtures of means and variances: by hand, against draws, the variance in two parts, the factor's closed form."""

import math

import pytest
import torch

from pluria.pool import VarianceScale, fit_variance_scale, mean_gaussian, variance_parts
from pluria.score import gaussian_nll, mixture_nll


def test_hand_worked_mixture():
    outputs = torch.tensor([[[1.0, 2.0]], [[5.0, 4.0]]]).double()
    weights = torch.tensor([3.0, 1.0])
    # mean 2; within 2.5; between 3/4 1 + 1/4 9 = 3
    assert mean_gaussian(outputs, weights).tolist() == [[2.0, 5.5]]
    assert [part.tolist() for part in variance_parts(outputs, weights)] == [[2.5], [3.0]]


def test_moments_are_those_of_draws():
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 1, 2, generator=generator).double().exp()
    weights = torch.tensor([0.2, 0.5, 0.3]).double()
    which = torch.multinomial(weights, 400_000, replacement=True, generator=generator)
    draws = outputs[which, 0, 0] + outputs[which, 0, 1].sqrt() * torch.randn(400_000, generator=generator).double()
    found = mean_gaussian(outputs, weights)[0]
    assert float(draws.mean()) == pytest.approx(float(found[0]), abs=0.01)
    assert float(draws.var()) == pytest.approx(float(found[1]), rel=0.01)


def test_parts_add_up_and_equal_members_do_not_differ():
    outputs = torch.rand(4, 5, 3, 2, generator=torch.Generator().manual_seed(0)).double()
    within, between = variance_parts(outputs)
    torch.testing.assert_close(within + between, mean_gaussian(outputs)[..., 1], atol=1e-12, rtol=0)
    assert within.shape == (5, 3)
    # The parts of a mean far from zero are no difference of large numbers.
    far = torch.tensor([[[1e9, 1.0]], [[1e9 + 1, 1.0]]], dtype=torch.float64)
    assert variance_parts(far)[1].tolist() == [0.25]
    assert variance_parts(outputs[:1].expand(4, -1, -1, -1))[1].abs().max() == 0


def test_weights_by_example_and_a_member_that_is_not_read():
    outputs = torch.tensor([[[1.0, 2.0], [1.0, 2.0]], [[5.0, 4.0], [math.nan, -1.0]]])
    pooled = mean_gaussian(outputs, torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    assert pooled.tolist() == [[5.0, 4.0], [1.0, 2.0]]
    assert bool(mean_gaussian(outputs.abs())[1].isnan().all())


def test_the_factor_is_the_minimum_of_the_nll():
    generator = torch.Generator().manual_seed(0)
    prediction = torch.rand(200, 2, generator=generator).double() + 0.1
    y = torch.randn(200, generator=generator).double()
    fitted = fit_variance_scale(prediction, y)
    assert fitted.factor == pytest.approx(float(((y - prediction[:, 0]) ** 2 / prediction[:, 1]).mean()), rel=1e-12)
    factor = torch.tensor(fitted.factor, dtype=torch.float64).requires_grad_()
    spread = prediction[:, 1] * factor
    (spread.log() + (y - prediction[:, 0]) ** 2 / spread).mean().backward()
    assert abs(float(factor.grad)) < 1e-12

    def loss(value):
        return gaussian_nll(prediction[:, 0], VarianceScale(value)(prediction)[:, 1], y).mean()

    assert loss(fitted.factor) < min(loss(fitted.factor * 1.01), loss(fitted.factor * 0.99))


def test_places_without_a_target_do_not_count():
    prediction = torch.tensor([[[0.0, 1.0], [0.0, 1.0]], [[0.0, 1.0], [math.nan, 1.0]]])
    y = torch.tensor([[1.0, 2.0], [3.0, math.nan]])
    assert fit_variance_scale(prediction, y).factor == pytest.approx(14 / 3)


def test_the_mixture_is_scored_as_it_is():
    y = torch.tensor([0.0, 0.3]).double()
    means, variances = torch.tensor([[-3.0, 0.0], [3.0, 1.0]]).double(), torch.tensor([[1.0, 2.0], [1.0, 0.5]]).double()
    weights = torch.tensor([0.25, 0.75]).double()
    laws = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(weights.expand(2, 2)), torch.distributions.Normal(means.T, variances.T.sqrt())
    )
    torch.testing.assert_close(mixture_nll(means, variances, y, weights), -laws.log_prob(y), atol=1e-12, rtol=0)
    single = mixture_nll(means[:1], variances[:1], y)
    torch.testing.assert_close(single, gaussian_nll(means[0], variances[0], y), atol=1e-12, rtol=0)
    torch.testing.assert_close(mixture_nll(means, variances, y, torch.tensor([1.0, 0.0])), single, atol=1e-12, rtol=0)
    # Far from all members nothing underflows.
    assert float(mixture_nll(means, variances, y + 1e6)[0]) == pytest.approx((1e6 - 3) ** 2 / 2, rel=1e-6)


def test_what_does_not_fit_is_refused():
    pairs, y = torch.rand(3, 4, 2) + 0.1, torch.rand(4)
    for call, said in (
        (lambda: mean_gaussian(pairs[..., :1]), "mean and variance"),
        (lambda: mean_gaussian(pairs[0]), r"\[K, N, ..., 2\]"),
        (lambda: mean_gaussian(-pairs), "variance is negative"),
        (lambda: mean_gaussian(pairs, -torch.ones(3)), "not negative"),
        (lambda: mean_gaussian(pairs, torch.zeros(3)), "positive, finite sum"),
        (lambda: fit_variance_scale(pairs[0], y[:3]), "y must be"),
        (lambda: fit_variance_scale(pairs[0], y.long()), "floating point"),
        (lambda: fit_variance_scale(pairs[0] * 0, y), "above zero"),
        (lambda: fit_variance_scale(pairs[0], pairs[0, :, 0]), "meet the targets"),
        (lambda: VarianceScale(0.0), "positive"),
        (lambda: mixture_nll(pairs[..., 0], pairs[..., 1], y[:2]), "do not fit"),
        (lambda: mixture_nll(pairs[..., 0], -pairs[..., 1], y), "positive"),
        (lambda: mixture_nll(pairs[..., 0], pairs[..., 1], y, torch.zeros(3)), "positive sum"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
