"""Planted laws are found again, with few sizes and a little noise; real subsets are averaged as a double loop does."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from pluria.score import extrapolate, fit_power_law


@pytest.mark.parametrize(("limit", "factor", "exponent"), [(0.1, 0.05, 1.0), (3.34, 0.25, 1.02), (0.5, 2.0, 0.4)])
def test_a_planted_law_is_found(limit: float, factor: float, exponent: float) -> None:
    sizes = torch.tensor([1.0, 2.0, 3.0, 4.0, 6.0, 8.0])
    law = fit_power_law(sizes, limit + factor / sizes.double() ** exponent)
    assert law.limit == pytest.approx(limit, rel=1e-3)
    assert law.factors[0] == pytest.approx(factor, rel=1e-2)
    assert law.exponents[0] == pytest.approx(exponent, rel=1e-2)
    assert law(math.inf) == law.limit
    assert law(5) == pytest.approx(limit + factor / 5**exponent, rel=1e-4)


def test_a_law_of_sizes_and_data_with_noise() -> None:
    sizes = torch.tensor(list(itertools.product([1e6, 3e6, 1e7, 3e7, 1e8], [1e8, 1e9, 1e10])))
    clean = 1.7 + 400 / sizes[:, 0].double() ** 0.34 + 410 / sizes[:, 1].double() ** 0.28
    noise = 1 + 0.002 * torch.randn(len(clean), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    law = fit_power_law(sizes, clean * noise)
    assert law.limit == pytest.approx(1.7, rel=0.1)
    held = 1.7 + 400 / 3e8**0.34 + 410 / 3e10**0.28
    assert law(3e8, 3e10) == pytest.approx(held, rel=0.02)


def logits(members: int = 6, rows: int = 300) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    truth = torch.randn(rows, 3, generator=generator)
    targets = torch.multinomial(truth.softmax(-1), 1, generator=generator).squeeze(-1)
    return truth + 1.2 * torch.randn(members, rows, 3, generator=generator), targets


def test_the_limit_of_members_lies_in_its_interval_and_below_all() -> None:
    outputs, targets = logits()
    found = extrapolate(outputs, targets, draws=30)
    many, _ = logits(200)
    assert len(found.losses) == 6
    assert found.limit.low < found.limit.estimate < found.limit.high
    assert found.law.limit < found.losses[-1]
    assert found.worth(2) > found.worth(4) > 0
    true = many.log_softmax(-1)[:, torch.arange(300), targets]
    truth = (math.log(200) - true.logsumexp(0)).mean()
    assert found.law.limit == pytest.approx(float(truth), rel=0.05)


def test_losses_of_subsets_are_those_of_a_double_loop() -> None:
    outputs, targets = logits(4, 20)
    found = extrapolate(outputs, targets, draws=1)
    probs = outputs.double().softmax(-1)
    for size in (1, 4):
        sets = list(itertools.combinations(range(4), size))
        nll = [-probs[list(s)].mean(0)[torch.arange(20), targets].log().mean() for s in sets]
        assert found.losses[size - 1] == pytest.approx(float(torch.stack(nll).mean()), abs=1e-12)


def test_factors_are_never_negative_and_mistakes_are_refused() -> None:
    sizes = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert fit_power_law(sizes, sizes).factors == (0.0,)
    with pytest.raises(ValueError, match="at four sizes or more; got 2"):
        fit_power_law(torch.tensor([1.0, 1.0, 2.0, 2.0]), sizes)
    with pytest.raises(ValueError, match="sizes are positive"):
        fit_power_law(sizes - 1, sizes)
    with pytest.raises(ValueError, match="four of them or more; got 3"):
        extrapolate(*logits(3, 9))
    outputs, targets = logits(4, 9)
    for wrong, said in (
        (targets[:3], "do not fit"),
        (targets + 100, "is no class"),
        (0 * targets - 100, "ignored"),
    ):
        with pytest.raises(ValueError, match=said):
            extrapolate(outputs, wrong)
