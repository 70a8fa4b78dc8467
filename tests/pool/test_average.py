"""Averages over members: hand-worked cases, a slow double loop, and the laws of pools."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluria.core.weights import spread_weights
from pluria.pool import mean, mean_bernoulli, mean_logit, mean_probability

CLASS_POOLS = [mean_probability, mean_logit]
ALL_POOLS = [*CLASS_POOLS, mean, mean_bernoulli]


def softmax(row):
    top = max(row)
    parts = [math.exp(value - top) for value in row]
    return [part / sum(parts) for part in parts]


def slow_pool(outputs, weights, geometric):
    """Pooled probabilities [N][C] by plain loops over lists."""
    total, pooled = sum(weights), []
    for n in range(len(outputs[0])):
        members = [softmax(member[n]) for member in outputs]
        classes = range(len(members[0]))
        if geometric:
            raw = [math.prod(p[c] ** (w / total) for p, w in zip(members, weights, strict=True)) for c in classes]
        else:
            raw = [sum(w * p[c] for p, w in zip(members, weights, strict=True)) / total for c in classes]
        pooled.append([value / sum(raw) for value in raw])
    return torch.tensor(pooled, dtype=torch.float64)


def draw(*shape, seed=0, dtype=torch.float64, scale=3.0):
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale).to(dtype)


@st.composite
def ensembles(draw_from):
    k, n, c = draw_from(st.integers(1, 4)), draw_from(st.integers(1, 3)), draw_from(st.integers(2, 4))
    number = st.floats(-8, 8)
    values = draw_from(st.lists(number, min_size=k * n * c, max_size=k * n * c))
    weights = draw_from(st.lists(st.floats(0.01, 5), min_size=k, max_size=k))
    outputs = torch.tensor(values, dtype=torch.float64).reshape(k, n, c)
    return outputs, torch.tensor(weights, dtype=torch.float64)


def test_hand_worked_means():
    outputs = torch.tensor([[[0.8, 0.2]], [[0.2, 0.8]]], dtype=torch.float64).log()
    weights = torch.tensor([3.0, 1.0])
    torch.testing.assert_close(mean_probability(outputs, weights).exp(), torch.tensor([[0.65, 0.35]]).double())
    # (0.8^3 0.2)^(1/4) : (0.2^3 0.8)^(1/4) = 2 : 1
    torch.testing.assert_close(mean_logit(outputs, weights).exp(), torch.tensor([[2 / 3, 1 / 3]]).double())
    labels = torch.tensor([[[0.8, 0.5]], [[0.2, 0.5]]], dtype=torch.float64).logit()
    torch.testing.assert_close(mean_bernoulli(labels, weights).sigmoid(), torch.tensor([[0.65, 0.5]]).double())
    assert mean(torch.tensor([[1.0], [5.0]]), weights).item() == 2.0


@settings(max_examples=40, deadline=None)
@given(ensembles())
def test_equals_the_slow_loop(ensemble):
    outputs, weights = ensemble
    for pool, geometric in ((mean_probability, False), (mean_logit, True)):
        slow = slow_pool(outputs.tolist(), weights.tolist(), geometric)
        torch.testing.assert_close(pool(outputs, weights).exp(), slow, rtol=1e-11, atol=1e-13)


def test_the_slow_loop_tells_the_two_means_apart():
    outputs = draw(3, 2, 4)
    slow = slow_pool(outputs.tolist(), [1.0, 2.0, 3.0], geometric=True)
    assert not torch.allclose(mean_probability(outputs, torch.tensor([1.0, 2.0, 3.0])).exp(), slow, atol=1e-3)


@settings(max_examples=40, deadline=None)
@given(ensembles(), st.randoms(use_true_random=False))
def test_laws_of_pools(ensemble, random):
    outputs, weights = ensemble
    order = list(range(len(weights)))
    random.shuffle(order)
    doubled = weights.clone()
    doubled[0] *= 2
    for pool in ALL_POOLS:
        plain = pool(outputs, weights)
        close = {"rtol": 1e-12, "atol": 1e-12}
        torch.testing.assert_close(pool(outputs[order], weights[order]), plain, **close)
        torch.testing.assert_close(pool(outputs, weights * 7), plain, **close)
        twice = pool(torch.cat([outputs, outputs[:1]]), torch.cat([weights, weights[:1]]))
        torch.testing.assert_close(twice, pool(outputs, doubled), **close)
        spread = weights[:, None].expand(outputs.shape[:2])
        torch.testing.assert_close(pool(outputs, spread), plain, **close)


@pytest.mark.parametrize("pool", ALL_POOLS)
@pytest.mark.parametrize("copies", [1, 5])
def test_copies_of_one_member_give_it_back(pool, copies):
    one = draw(4, 3, seed=1).log_softmax(-1)
    torch.testing.assert_close(pool(one.expand(copies, 4, 3)), one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pool", ALL_POOLS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtype_and_dense_shape_are_kept(pool, dtype):
    outputs = draw(3, 2, 4, 5, 6, dtype=dtype)
    pooled = pool(outputs)
    assert (pooled.shape, pooled.dtype) == ((2, 4, 5, 6), dtype)
    # One rounding at the end: the answer is the float64 answer, rounded.
    assert torch.equal(pooled, pool(outputs.double()).to(dtype))


@pytest.mark.parametrize("pool", CLASS_POOLS)
def test_pooled_probabilities_lie_on_the_simplex(pool):
    torch.testing.assert_close(pool(draw(5, 7, 9, scale=40.0)).exp().sum(-1), torch.ones(7).double())


def test_mean_probability_is_never_worse_than_the_mean_member():
    outputs, weights = draw(4, 50, 6), torch.tensor([0.1, 0.2, 0.3, 0.4])
    members = -(weights[:, None, None] * outputs.log_softmax(-1)).sum(0)
    assert bool((-mean_probability(outputs, weights) <= members + 1e-12).all())


def test_weights_per_example_equal_pooling_each_example_alone():
    outputs, weights = draw(3, 4, 5), draw(3, 4, seed=2).abs()
    for pool in ALL_POOLS:
        alone = torch.cat([pool(outputs[:, n : n + 1], weights[:, n]) for n in range(4)])
        torch.testing.assert_close(pool(outputs, weights), alone, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pool", ALL_POOLS)
def test_a_member_of_weight_zero_is_not_read(pool):
    outputs = torch.cat([draw(2, 3, 4), torch.full((1, 3, 4), torch.nan)])
    torch.testing.assert_close(
        pool(outputs, torch.tensor([1.0, 2.0, 0.0])), pool(outputs[:2], torch.tensor([1.0, 2.0]))
    )
    assert bool(pool(outputs).isnan().all())


def test_extreme_logits_keep_their_digits():
    outputs = torch.tensor([[[0.0, -2000.0]], [[0.0, -3000.0]]], dtype=torch.float64)
    assert mean_probability(outputs)[0, 1].item() == pytest.approx(-2000.0 - math.log(2), abs=1e-9)
    labels = torch.tensor([[60.0], [70.0]], dtype=torch.float64)
    wanted = -math.log((math.exp(-60.0) + math.exp(-70.0)) / 2)
    assert mean_bernoulli(labels).item() == pytest.approx(wanted, rel=1e-12)


def test_impossible_classes_stay_impossible():
    outputs = torch.tensor([[[0.0, 0.0, -torch.inf]], [[0.0, -torch.inf, -torch.inf]]])
    torch.testing.assert_close(mean_probability(outputs).exp(), torch.tensor([[0.75, 0.25, 0.0]]))
    torch.testing.assert_close(mean_logit(outputs).exp(), torch.tensor([[1.0, 0.0, 0.0]]))


@pytest.mark.parametrize("pool", ALL_POOLS)
@pytest.mark.parametrize(
    "weights",
    [[0.0, 0.0], [1.0, -0.5], [1.0, torch.nan], [1.0, torch.inf], [1.0], [1.0, 1.0, 1.0]],
)
def test_bad_weights_are_refused(pool, weights):
    with pytest.raises(ValueError, match="weights"):
        pool(draw(2, 3, 4), torch.tensor(weights))


def test_an_example_without_any_weight_is_refused():
    with pytest.raises(ValueError, match="every example"):
        mean_probability(draw(2, 2, 3), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))


@pytest.mark.parametrize("pool", ALL_POOLS)
def test_bad_outputs_are_refused(pool):
    with pytest.raises(TypeError, match="floating point"):
        pool(torch.zeros(2, 3, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least one member"):
        pool(torch.zeros(0, 3, 4))


@pytest.mark.parametrize("pool", CLASS_POOLS)
def test_class_pools_need_a_class_axis(pool):
    with pytest.raises(ValueError, match=r"\[K, N, ..., C\]"):
        pool(torch.zeros(2, 3))


def test_inputs_are_left_alone():
    outputs, weights = draw(2, 3, 4), torch.tensor([1.0, 3.0])
    before = outputs.clone(), weights.clone()
    for pool in ALL_POOLS:
        pool(outputs, weights)
    assert torch.equal(outputs, before[0])
    assert torch.equal(weights, before[1])


def test_member_weights_are_spread_and_not_normalised():
    spread = spread_weights(torch.zeros(2, 3, 4), torch.tensor([1, 2]))
    assert torch.equal(spread, torch.tensor([[1.0] * 3, [2.0] * 3], dtype=torch.float64))
    assert torch.equal(spread_weights(torch.zeros(2, 3), None), torch.ones(2, 3, dtype=torch.float64))
