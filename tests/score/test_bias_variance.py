"""Bias, variance and diversity: the identity to 1e-12, divergences by brute force, a hand-worked case."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluria.score import (
    ambiguity,
    bias_variance_nll,
    bias_variance_squared,
    brier,
    geometric_nll,
    kl,
    member_nll,
    member_sums,
    squared_error,
)

CLOSE = {"rtol": 1e-12, "atol": 1e-12}


@st.composite
def trainings(draw):
    d, k, n, c = (draw(st.integers(1, high)) for high in (4, 4, 3, 4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    outputs = torch.randn(d, k, n, c, generator=generator, dtype=torch.float64) * draw(st.floats(0.0, 8.0))
    weights = torch.rand(k, generator=generator, dtype=torch.float64) + 0.01
    return outputs, weights, torch.randint(c, (n,), generator=generator)


@settings(max_examples=60, deadline=None)
@given(trainings())
def test_the_nll_identity_and_every_part(case):
    outputs, weights, y = case
    parts, shares = bias_variance_nll(outputs, y, weights=weights), weights / weights.sum()
    log_probs = outputs.log_softmax(-1)
    sums = [member_sums(one, weights) for one in outputs]
    torch.testing.assert_close(parts.loss, sum(geometric_nll(s, y) for s in sums) / len(sums), **CLOSE)
    torch.testing.assert_close(parts.member_loss, sum(member_nll(s, y) for s in sums) / len(sums), **CLOSE)
    centroids = log_probs.mean(0).log_softmax(-1)
    variance = sum(w * kl(c, p) for one in log_probs for w, c, p in zip(shares, centroids, one, strict=True))
    torch.testing.assert_close(parts.variance, variance / len(outputs), **CLOSE)
    pooled = [s.mean_log_probs.log_softmax(-1) for s in sums]
    diversity = sum(
        w * kl(q, p) for q, one in zip(pooled, log_probs, strict=True) for w, p in zip(shares, one, strict=True)
    )
    torch.testing.assert_close(parts.diversity, diversity / len(outputs), **CLOSE)
    assert min(parts.bias.min(), parts.variance.min(), parts.diversity.min()) >= -1e-12


@settings(max_examples=60, deadline=None)
@given(trainings())
def test_the_squared_identity_and_every_part(case):
    outputs, weights, _ = case
    y, shares = outputs[0, 0] / 3 + 1, (weights / weights.sum()).tolist()
    parts = bias_variance_squared(outputs, y, weights=weights)
    mixed = [sum(w * p for w, p in zip(shares, one, strict=True)) for one in outputs]
    torch.testing.assert_close(parts.loss, sum(squared_error(m, y) for m in mixed) / len(mixed), **CLOSE)
    centroids = outputs.mean(0)
    bias = sum(w * squared_error(c, y) for w, c in zip(shares, centroids, strict=True))
    torch.testing.assert_close(parts.bias, bias, **CLOSE)
    variance = sum(w * squared_error(p, c) for one in outputs for w, p, c in zip(shares, one, centroids, strict=True))
    torch.testing.assert_close(parts.variance, variance / len(outputs), **CLOSE)
    diversity = sum(
        w * squared_error(p, m) for m, one in zip(mixed, outputs, strict=True) for w, p in zip(shares, one, strict=True)
    )
    torch.testing.assert_close(parts.diversity, diversity / len(outputs), **CLOSE)


def test_hand_worked_squares():
    # Members 0 2 and 2 4 at 1: centroids 1 3, bias (0 + 4) / 2, variance 1; means 1 3, diversity 1, loss (0 + 4) / 2.
    parts = bias_variance_squared(torch.tensor([[[0.0], [2.0]], [[2.0], [4.0]]]), torch.tensor([1.0]))
    assert [part.item() for part in (parts.bias, parts.variance, parts.diversity, parts.loss)] == [2, 1, 1, 2]


def test_hand_worked_nll():
    # One member, two trainings .8 and .2: the centroid is even, the variance -log(2 * .4).
    rows = torch.tensor([[[[0.8, 0.2]]], [[[0.2, 0.8]]]], dtype=torch.float64).log()
    parts = bias_variance_nll(rows, torch.tensor([0]))
    assert parts.bias.item() == pytest.approx(math.log(2), abs=1e-12)
    assert parts.variance.item() == pytest.approx(-math.log(0.8), abs=1e-12)
    assert parts.diversity.item() == pytest.approx(0, abs=1e-12)


def test_one_training_has_no_variance_and_the_ambiguity_as_diversity():
    outputs = torch.randn(1, 5, 6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    parts = bias_variance_nll(outputs, torch.zeros(6, dtype=torch.uint8))
    torch.testing.assert_close(parts.diversity, ambiguity(member_sums(outputs[0])), **CLOSE)
    torch.testing.assert_close(parts.variance, torch.zeros(6).double(), rtol=0, atol=1e-12)


def test_of_probabilities_it_is_the_brier_score():
    outputs = torch.randn(2, 3, 6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(-1)
    y = torch.tensor([0, 1, 2, 3, 0, 1])
    parts = bias_variance_squared(outputs, torch.nn.functional.one_hot(y, 4).double())
    wanted = sum(brier(one.mean(0).log(), y) for one in outputs) / 2
    torch.testing.assert_close(4 * parts.loss, wanted, **CLOSE)


def test_members_of_weight_zero_are_not_read_and_what_is_refused():
    outputs, y = (
        torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)),
        torch.arange(4),
    )
    broken = outputs.clone()
    broken[:, 1] = torch.nan
    weights = torch.tensor([1.0, 0.0, 2.0])
    one, other = (bias_variance_nll(rows, y, weights=weights).loss for rows in (outputs, broken))
    torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="NaN"):
        bias_variance_nll(broken, y)
    with pytest.raises(ValueError, match="weights"):
        bias_variance_nll(outputs, y, weights=torch.zeros(3))
    with pytest.raises(ValueError, match="flatten"):
        bias_variance_nll(outputs, y.clone().fill_(-100))
    with pytest.raises(ValueError, match="no class"):
        bias_variance_nll(outputs, y + 3)
    for rows in (outputs[0], outputs[:, :0], outputs[:, :, :2]):
        with pytest.raises(ValueError, match=r"\[D, K"):
            bias_variance_nll(rows, y)
    with pytest.raises(TypeError, match="floating"):
        bias_variance_nll(outputs.long(), y)
    with pytest.raises(TypeError, match="targets"):
        bias_variance_squared(outputs, y)
