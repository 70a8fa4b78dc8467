"""Matched and isotropic noise: mean, variance, and what is refused."""

import pytest
import torch

from pluria.core.ensemble import Ensemble, single, stack
from pluria.core.family import block
from pluria.core.gaussian import Gaussian
from pluria.numbers.rounding import variance
from pluria.sample import gaussian, isotropic, low_precision
from sample.networks import ROUNDED, params, small, uniform

K = 3000


def base() -> Ensemble:
    return low_precision({"weight": uniform(6, 16), "bias": torch.ones(6)}, format="int3", members=4)


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_mean_and_variance_match_rounding(scale: float) -> None:
    like = base()
    value, grid = like.families["weight"].parts(0)
    drawn = block(gaussian(like, scale=scale, key=2).families["weight"], range(K)).double()
    wanted = variance(value, grid).double() * scale**2
    assert ((drawn.mean(dim=0) - value) ** 2 <= 4.5**2 * wanted / K + 1e-14).all()
    spread = drawn.var(dim=0)
    # The largest weight of a channel lies on the grid: it has no noise at all, up to its rounding.
    moves = wanted > 1e-12
    assert moves.float().mean() > 0.8
    assert ((spread[moves] / wanted[moves] - 1).abs() < 4.5 * (2 / K) ** 0.5).all()
    assert (spread[~moves] < 1e-10).all()


def test_isotropic_noise_is_the_same_everywhere() -> None:
    drawn = block(isotropic(base(), std=0.1, key=2).families["weight"], range(K)).double()
    assert ((drawn.var(dim=0) / 0.01 - 1).abs() < 4.5 * (2 / K) ** 0.5).all()
    assert ((drawn.mean(dim=0) - uniform(6, 16)).abs() < 4.5 * 0.1 / K**0.5).all()


def test_a_wrong_variance_would_be_seen() -> None:
    drawn = block(isotropic(base(), std=0.11, key=2).families["weight"], range(K)).double()
    assert not ((drawn.var(dim=0) / 0.01 - 1).abs() < 4.5 * (2 / K) ** 0.5).all()


@pytest.mark.parametrize("make", [gaussian, lambda like, key=0: isotropic(like, std=0.1, key=key)])
def test_only_what_is_rounded_gets_noise(make) -> None:
    like = low_precision(small(), members=4).take([3, 1])
    drawn = make(like)
    assert drawn.members == (3, 1)
    assert [name for name, family in drawn.families.items() if isinstance(family, Gaussian)] == list(ROUNDED)
    assert torch.equal(drawn.params(3)["1.running_var"], params(0)["1.running_var"])
    assert not torch.equal(drawn.params(3)["0.weight"], drawn.params(1)["0.weight"])
    assert torch.equal(make(like, key=0).params(3)["0.weight"], drawn.params(3)["0.weight"])
    assert not torch.equal(make(like, key=1).params(3)["0.weight"], drawn.params(3)["0.weight"])


@pytest.mark.parametrize(
    ("make", "near"), [(lambda e: gaussian(e, scale=0.0), 0.0), (lambda e: isotropic(e, std=0.0), 0.0)]
)
def test_without_noise_it_is_the_base_whatever_its_number(make, near: float) -> None:
    like = low_precision(stack([params(0), params(1)]).take([1]), members=3)
    for member in make(like):
        for name, value in params(1).items():
            assert torch.equal(member[name], value), name


def test_ties_are_kept() -> None:
    value = uniform(4, 4)
    drawn = gaussian(low_precision({"a.weight": value, "b.weight": value}))
    assert drawn.families["a.weight"] is drawn.families["b.weight"]


@pytest.mark.parametrize("make", [gaussian, lambda like: isotropic(like, std=0.1)])
def test_refused(make) -> None:
    with pytest.raises(ValueError, match="no tensor of the ensemble is rounded"):
        make(single(params(0)))
    with pytest.raises(ValueError, match="needs one base; the ensemble rounds 2 in turn"):
        make(low_precision(stack([params(0), params(1)])))
