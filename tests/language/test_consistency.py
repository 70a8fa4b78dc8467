"""Consistency weights against hand-worked cases and a slow double loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pluria.language import consistency, model_consistency, token_consistency
from pluria.language.consistency import FILTERS
from pluria.pool import mean_probability

TWO = torch.tensor([[[0.6, 0.4, 0.0]], [[0.2, 0.4, 0.4]]], dtype=torch.float64).log()


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).log_softmax(-1)


def slow(probs: list[list[float]], weights: list[float], f: Any, anchor: int | None, top: int | None) -> list[float]:
    """The formula, word by word, for one example."""
    k, v = len(probs), len(probs[0])
    share = [w / sum(weights) for w in weights]
    mean = [sum(share[i] * probs[i][j] for i in range(k)) for j in range(v)]

    def best(row: list[float]) -> set[int]:
        return set(sorted(range(v), key=lambda j: -row[j])[:top])

    scores = [0.0] * v
    members, factors = [], []
    for i in range(k):
        support = [j for j in best(probs[i]) | best(mean) if probs[i][j] > 0 or mean[j] > 0]
        near = {j: f(abs(probs[i][j] - mean[j])) for j in support}
        average = sum(near.values()) / len(support)
        entropy = -sum(p * math.log(p) for p in probs[i] if p > 0)
        members.append(share[i] * sum(near.values()) / entropy)
        factors.append([1.0 if i == anchor else near[j] / average if j in near else 1.0 for j in range(v)])
    if anchor is not None:
        members[anchor] = max(members[anchor], sum(members) - members[anchor])
    for i in range(k):
        for j in range(v):
            scores[j] += members[i] * factors[i][j] * probs[i][j]
    return [score / sum(scores) for score in scores]


def test_hand_worked() -> None:
    # p* = (.4, .4, .2), so every distance is .2, 0, .2 and both members are filtered alike: .8, 1, .8, sum 2.6.
    factors = token_consistency(TWO, tokens="linear")
    wanted = torch.tensor([0.8, 1.0, 0.8], dtype=torch.float64) * 3 / 2.6
    torch.testing.assert_close(factors, wanted.expand(2, 1, 3))
    one = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
    other = -(0.2 * math.log(0.2) + 0.8 * math.log(0.4))
    share = (1 / one) / (1 / one + 1 / other)
    found = model_consistency(TWO, tokens="linear")
    torch.testing.assert_close(found[:, 0], torch.tensor([share, 1 - share], dtype=torch.float64))
    raw = [0.8 * (share * 0.6 + (1 - share) * 0.2), 0.4, 0.8 * (1 - share) * 0.4]
    torch.testing.assert_close(
        consistency(TWO, tokens="linear").exp()[0], torch.tensor(raw, dtype=torch.float64) / sum(raw)
    )


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(("anchor", "top"), [(None, None), (1, None), (None, 2), (2, 3)])
def test_like_the_double_loop(name: Any, anchor: int | None, top: int | None) -> None:
    x, weights = drawn(3, 4, 7), [1.0, 2.0, 0.5]

    def f(far: float) -> float:
        return float(FILTERS[name](torch.tensor(far, dtype=torch.float64)))

    found = consistency(x, torch.tensor(weights), tokens=name, anchor=anchor, top=top).exp()
    for n in range(4):
        rows = [x[k, n].exp().tolist() for k in range(3)]
        assert found[n].tolist() == pytest.approx(slow(rows, weights, f, anchor, top), abs=1e-12)


@pytest.mark.parametrize("name", FILTERS)
def test_filters_fall_from_one_to_zero(name: Any) -> None:
    values = FILTERS[name](torch.linspace(0, 1, 11, dtype=torch.float64))
    assert values[[0, -1]].tolist() == pytest.approx([1, 0], abs=1e-12)
    assert bool((values.diff() < 0).all())


def test_a_known_value_of_each_filter() -> None:
    half = {name: float(f(torch.tensor(0.5, dtype=torch.float64))) for name, f in FILTERS.items()}
    rbf = (math.exp(-1) - math.exp(-2)) / (1 - math.exp(-2))
    assert half == pytest.approx({"rbf": rbf, "linear": 0.5, "power": 0.03125, "reciprocal": 1 / 3, "sigmoid": 0.5})


def test_switched_off_it_is_the_mean() -> None:
    x, weights = drawn(3, 5, 6), torch.tensor([1.0, 2.0, 3.0])
    plain = consistency(x, weights, tokens=None, models=False)
    torch.testing.assert_close(plain, mean_probability(x, weights), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(consistency(x, weights), plain)


def test_the_anchor_has_half_or_more() -> None:
    x = drawn(4, 9, 6)
    found = model_consistency(x, anchor=2)
    assert bool((found[2] >= 0.5 - 1e-12).all())
    torch.testing.assert_close(found.sum(0), torch.ones(9, dtype=torch.float64))
    assert bool((model_consistency(x)[2] < 0.5).any())
    assert bool((token_consistency(x, anchor=2)[2] == 1).all())


def test_a_misaligned_member_counts_less() -> None:
    x = drawn(1, 50, 8)[[0, 0, 0]] * 3
    x[2] = x[2][:, torch.randperm(8, generator=torch.Generator().manual_seed(0))]
    near = token_consistency(x, top=2) * x.exp()
    first = x[2].argmax(-1, keepdim=True)
    assert float(near[2].gather(-1, first).mean()) < float(x[2].exp().gather(-1, first).mean())
    assert float(consistency(x, top=2).exp().gather(-1, first).mean()) < float(
        mean_probability(x).exp().gather(-1, first).mean()
    )


def test_other_axes_and_weights_for_each_example() -> None:
    x, weights = drawn(3, 4, 2, 5), torch.rand(3, 4, generator=torch.Generator().manual_seed(1))
    found = consistency(x, weights)
    for n in range(4):
        for m in range(2):
            torch.testing.assert_close(found[n, m], consistency(x[:, n : n + 1, m], weights[:, n])[0])


def test_a_member_of_weight_zero_is_not_read() -> None:
    x = drawn(3, 4, 5)
    spoiled = x.clone()
    spoiled[1] = torch.nan
    weights = torch.tensor([1.0, 0.0, 2.0])
    torch.testing.assert_close(consistency(spoiled, weights), consistency(x[[0, 2]], weights[[0, 2]]))
    torch.testing.assert_close(consistency(x, 7 * weights), consistency(x, weights))


def test_a_member_that_is_certain() -> None:
    x = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]]).log()
    assert float(model_consistency(x)[0, 0]) > 0.9999
    assert bool(torch.isfinite(consistency(x)).all())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tokens": "box"}, "one of rbf, linear"),
        ({"top": 0}, "one word or more"),
        ({"anchor": 2}, r"0\.\.1; got 2"),
        ({"anchor": -1}, r"0\.\.1; got -1"),
        ({"weights": torch.tensor([-1.0, 2.0])}, "not negative"),
        ({"weights": torch.zeros(2)}, "positive sum"),
        ({"weights": torch.ones(3)}, r"must be \[2\]"),
    ],
)
def test_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        consistency(TWO, **options)
    with pytest.raises(ValueError, match=r"must be \[K, N, \.\.\., V\]"):
        consistency(TWO[0])
