"""Diversity: hand-worked, equal to brute force over members and pairs, and exact decompositions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluria.score import (
    ambiguity,
    brier,
    disagreement,
    geometric_nll,
    member_brier,
    member_error,
    member_nll,
    member_sums,
    mutual_information,
    nll,
    variance,
)

LABEL_FREE = [ambiguity, mutual_information, variance, disagreement]
LABELLED = [member_nll, geometric_nll, member_error, member_brier]
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


@st.composite
def ensembles(draw):
    k, n, c = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(2, 4))
    seed = draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(k, n, c, generator=generator, dtype=torch.float64) * draw(st.floats(0.0, 10.0))
    weights = torch.rand(k, generator=generator, dtype=torch.float64) + 0.01
    return outputs, weights, torch.randint(c, (n,), generator=generator)


def probabilities(outputs, weights):
    return outputs.softmax(-1), (weights / weights.sum())[:, None]


def test_hand_worked_pair():
    members = member_sums(torch.tensor([[[0.8, 0.2]], [[0.2, 0.8]]], dtype=torch.float64).log())
    y = torch.tensor([0])
    assert member_nll(members, y).item() == pytest.approx(-(math.log(0.8) + math.log(0.2)) / 2, abs=1e-12)
    assert geometric_nll(members, y).item() == pytest.approx(math.log(2), abs=1e-12)
    assert ambiguity(members).item() == pytest.approx(-math.log(2 * 0.4), abs=1e-12)
    assert variance(members).item() == pytest.approx(2 * 0.09, abs=1e-12)
    assert member_brier(members, y).item() == pytest.approx((0.08 + 1.28) / 2, abs=1e-12)
    assert member_error(members, y).item() == 0.5
    assert disagreement(members).item() == 1.0
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert mutual_information(members).item() == pytest.approx(math.log(2) - entropy, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(ensembles())
def test_ambiguity_is_the_gap_for_every_target_and_not_negative(ensemble):
    outputs, weights, y = ensemble
    members = member_sums(outputs, weights)
    assert bool((ambiguity(members) >= -1e-12).all())
    for c in range(outputs.shape[-1]):
        target = torch.full_like(y, c)
        gap = member_nll(members, target) - geometric_nll(members, target)
        torch.testing.assert_close(ambiguity(members), gap, **CLOSE)


@settings(max_examples=60, deadline=None)
@given(ensembles())
def test_losses_of_members_equal_the_loop(ensemble):
    outputs, weights, y = ensemble
    members = member_sums(outputs, weights)
    shares = (weights / weights.sum()).tolist()
    own = [(w, member.log_softmax(-1)) for w, member in zip(shares, outputs, strict=True)]
    torch.testing.assert_close(member_nll(members, y), sum(w * nll(p, y) for w, p in own), **CLOSE)
    torch.testing.assert_close(member_brier(members, y), sum(w * brier(p, y) for w, p in own), **CLOSE)
    wrong = sum(w * (p.argmax(-1) != y).double() for w, p in own)
    torch.testing.assert_close(member_error(members, y), wrong, **CLOSE)


@settings(max_examples=60, deadline=None)
@given(ensembles())
def test_brier_ambiguity_is_the_sum_of_variances(ensemble):
    outputs, weights, y = ensemble
    members = member_sums(outputs, weights)
    probs, shares = probabilities(outputs, weights)
    pooled = (shares[..., None] * probs).sum(0)
    spread = (shares[..., None] * (probs - pooled).square()).sum((0, 2))
    torch.testing.assert_close(variance(members), spread, **CLOSE)
    torch.testing.assert_close(member_brier(members, y) - brier(pooled.log(), y), spread, **CLOSE)


@settings(max_examples=60, deadline=None)
@given(ensembles())
def test_mutual_information_is_the_mean_divergence_from_the_mean(ensemble):
    outputs, weights, _ = ensemble
    probs, shares = probabilities(outputs, weights)
    pooled = (shares[..., None] * probs).sum(0)
    divergence = (shares * torch.special.xlogy(probs, probs / pooled).sum(-1)).sum(0)
    torch.testing.assert_close(mutual_information(member_sums(outputs, weights)), divergence, **CLOSE)
    assert bool((divergence <= math.log(len(outputs)) + 1e-12).all())


@settings(max_examples=60, deadline=None)
@given(ensembles())
def test_disagreement_equals_the_loop_over_pairs(ensemble):
    outputs, weights, y = ensemble
    votes, w = outputs.log_softmax(-1).argmax(-1), weights.tolist()
    for n in range(len(y)):
        pairs = [(i, j) for i in range(len(w)) for j in range(len(w)) if i != j]
        mass = sum(w[i] * w[j] for i, j in pairs)
        differ = sum(w[i] * w[j] for i, j in pairs if votes[i, n] != votes[j, n])
        found = disagreement(member_sums(outputs, weights))[n].item()
        assert found == pytest.approx(differ / mass if pairs else 0.0, abs=1e-11)


@settings(max_examples=40, deadline=None)
@given(ensembles())
def test_laws_of_members(ensemble):
    outputs, weights, y = ensemble
    doubled = weights.clone()
    doubled[0] *= 2
    plain, flipped = member_sums(outputs, weights), member_sums(outputs.flip(0), weights.flip(0))
    twice = member_sums(torch.cat([outputs, outputs[:1]]), torch.cat([weights, weights[:1]]))
    heavier, scaled = member_sums(outputs, doubled), member_sums(outputs, weights * 3)
    for figure in [*LABEL_FREE, *(lambda m, f=f: f(m, y) for f in LABELLED)]:
        torch.testing.assert_close(figure(flipped), figure(plain), **CLOSE)
        torch.testing.assert_close(figure(scaled), figure(plain), **CLOSE)
        if figure is not disagreement:
            torch.testing.assert_close(figure(twice), figure(heavier), **CLOSE)


@pytest.mark.parametrize("copies", [1, 4])
def test_equal_members_have_no_diversity(copies):
    one = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    members = member_sums(one.expand(copies, 6, 3))
    for figure in LABEL_FREE:
        torch.testing.assert_close(figure(members), torch.zeros(6).double(), rtol=0, atol=1e-12)
    y = torch.zeros(6, dtype=torch.long)
    torch.testing.assert_close(member_nll(members, y), nll(one.log_softmax(-1), y), **CLOSE)


def test_members_that_exclude_each_other():
    members = member_sums(torch.tensor([[[0.0, -torch.inf]], [[-torch.inf, 0.0]]]))
    assert ambiguity(members).item() == math.inf
    assert mutual_information(members).item() == pytest.approx(math.log(2), abs=1e-12)
    assert variance(members).item() == pytest.approx(0.5, abs=1e-12)


@pytest.mark.parametrize("figure", LABELLED)
def test_class_156_is_a_class_in_every_integer_type(figure):
    members = member_sums(torch.randn(2, 3, 200, generator=torch.Generator().manual_seed(0)))
    y = torch.tensor([156, 0, 199])
    assert torch.equal(figure(members, y.to(torch.uint8)), figure(members, y))


@pytest.mark.parametrize("figure", LABELLED)
def test_bad_targets_are_refused(figure):
    members = member_sums(torch.zeros(2, 3, 4))
    with pytest.raises(ValueError, match="3 rows"):
        figure(members, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="no class"):
        figure(members, torch.tensor([0, 1, 4]))
    with pytest.raises(ValueError, match="flatten"):
        figure(members, torch.tensor([0, 1, -100]))
