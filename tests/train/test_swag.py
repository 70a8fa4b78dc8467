"""The covariance of SWAG's draws is the one it was told, between layers too."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.core.family import block
from pluria.core.gaussian import Gaussian
from pluria.numbers.key import Key
from pluria.train import SWA, SWAG, State, multi_swag
from train.runs import steps, tied

DRAWS = 2000


class Two(nn.Module):
    """Two parameters that move together."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))


def collected(collector: SWAG, count: int = 12, centre: float = 1.0, size: float = 1e-4) -> tuple[State, Tensor]:
    """A state after Gaussian iterates `[count, 3]` around `centre`, correlated across both parameters."""
    mix = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [0.9, 0.0, 0.3]])
    points = centre + size * torch.randn(count, 3, generator=torch.Generator().manual_seed(3)) @ mix.T
    model = Two()
    state = collector.start(model)
    for step, point in enumerate(points, start=1):
        with torch.no_grad():
            model.a.copy_(point[:2])
            model.b.copy_(point[2:])
        state = collector.update(state, model, step)
    return state, points.double()


def wanted(points: Tensor, rank: int, scale: float) -> Tensor:
    """s (diag + D D' / (R - 1)) with D the last columns less the running mean, in float64."""
    running = points.cumsum(0) / torch.arange(1, len(points) + 1)[:, None]
    columns = (points - running)[-rank:]
    return scale * (torch.diag(points.var(0, correction=0)) + columns.T @ columns / (len(columns) - 1))


def covariance(ensemble: Ensemble, draws: int = DRAWS) -> Tensor:
    drawn = torch.cat([block(ensemble.families[n], range(draws), dtype=torch.float64) for n in ("a", "b")], 1)
    return torch.cov(drawn.T)


def off(found: Tensor, right: Tensor) -> float:
    """Largest difference of two covariances, over the product of the standard deviations."""
    sd = right.diagonal().sqrt()
    return float(((found - right).abs() / (sd[:, None] * sd)).max())


def test_draws_have_the_right_covariance_across_layers() -> None:
    state, points = collected(SWAG(rank=5))
    right = wanted(points, 5, 0.5)
    assert off(covariance(SWAG(rank=5).ensemble(state, members=1)), right) < 0.08
    assert right[0, 2] / (right[0, 0] * right[2, 2]).sqrt() > 0.5


@pytest.mark.study
def test_each_entry_of_the_covariance_is_within_a_twentieth() -> None:
    state, points = collected(SWAG(rank=5))
    right = wanted(points, 5, 0.5)
    found = covariance(SWAG(rank=5).ensemble(state, members=1), draws=100_000)
    print(f"entries of the covariance over what they should be, less one: {(found / right - 1).tolist()}")
    assert torch.allclose(found, right, rtol=0.05, atol=0)


def test_planted_errors_are_caught() -> None:
    state, points = collected(SWAG(rank=5))
    right, ensemble = wanted(points, 5, 0.5), SWAG(rank=5).ensemble(state, members=1)

    def changed(change: Callable[[Gaussian], Gaussian]) -> Ensemble:
        families = {name: family for name, family in ensemble.families.items() if isinstance(family, Gaussian)}
        return ensemble.with_families({name: change(family) for name, family in families.items()})

    variance = changed(lambda f: dataclasses.replace(f, std=f.std**2))
    assert off(covariance(variance, 1000), right) > 0.2
    apart = changed(lambda f: dataclasses.replace(f, key=Key(0).fold(f.name)))
    assert off(covariance(apart, 1000), right) > 0.2
    no_square_root = changed(lambda f: dataclasses.replace(f, factors=None if f.factors is None else f.factors / 2))
    assert off(covariance(no_square_root, 1000), right) > 0.2


def test_float32_moments_survive_a_large_mean() -> None:
    state, points = collected(SWAG(rank=0), centre=100.0, size=1e-2)
    found = covariance(SWAG(rank=0).ensemble(state, members=1)).diagonal()
    assert torch.allclose(found, points.var(0, correction=0), rtol=0.12)


def test_without_spread_it_is_swa() -> None:
    model = tied()
    swag, swa = SWAG(), SWA()
    one, other = swag.start(model), swa.start(model)
    for step in steps(model, 5):
        one, other = swag.update(one, model, step), swa.update(other, model, step)
    drawn, mean = swag.ensemble(one, members=2, scale=0).params(1), swa.ensemble(other).params(0)
    assert all(torch.equal(drawn[name], mean[name]) for name in mean)


def test_one_iterate_has_no_low_rank_part() -> None:
    state, _ = collected(SWAG(rank=5), count=1)
    family = SWAG(rank=5).ensemble(state).families["a"]
    assert isinstance(family, Gaussian)
    assert family.factors is None


def test_several_runs_are_drawn_apart() -> None:
    states = [collected(SWAG(rank=2), centre=c)[0] for c in (1.0, 2.0)]
    both = multi_swag(SWAG(rank=2), states, members=3, key=1)
    values = block(both.families["b"], both.members).flatten()
    assert len(both) == 6
    assert torch.equal(values.round(), torch.tensor([1.0, 1, 1, 2, 2, 2]))
    assert not torch.equal(values[:3] - 1, values[3:] - 2)
    with pytest.raises(ValueError, match="no runs"):
        multi_swag(SWAG(), [])


def test_bad_numbers() -> None:
    with pytest.raises(ValueError, match="a rank is 0"):
        SWAG(rank=-1)
    state, _ = collected(SWAG(rank=2))
    with pytest.raises(ValueError, match="a scale is 0 or more"):
        SWAG(rank=2).ensemble(state, scale=-1)
