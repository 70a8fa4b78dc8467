"""Known answers that take minutes: modes that a chain visits, networks that a permutation needs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pluria.train import SGLD, Cycle, networks_needed

pytestmark = pytest.mark.study


class Grid(nn.Module):
    """Minus the log density of 25 Gaussians, two apart, of variance 0.03, under noisy gradients."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        ticks = torch.arange(-4.0, 5.0, 2.0)
        self.centres = torch.cartesian_prod(ticks, ticks)
        self.at = nn.Parameter(torch.zeros(2))
        self.generator = torch.Generator().manual_seed(seed)

    def pull(self) -> Tensor:
        """The gradient, and noise of unit variance."""
        apart = self.centres - self.at.detach()
        shares = (-apart.square().sum(1) / 0.06).softmax(0)
        return -(shares[:, None] * apart).sum(0) / 0.03 + torch.randn(2, generator=self.generator)

    def nearest(self) -> int:
        apart = (self.centres - self.at.detach()).square().sum(1)
        return int(apart.argmin()) if float(apart.min()) < 0.25 else -1


def visited(seed: int, rate: float, cycles: int | None, steps: int = 50_000) -> int:
    """How many modes a chain comes near, by cosine cycles, or under a decaying rate."""
    grid, seen = Grid(seed), set[int]()
    sampler = SGLD([grid.at], rate, data_size=1, key=seed)
    cycle = Cycle(steps // cycles) if cycles else None
    for step in range(steps):
        share = cycle.share(step) if cycle else (1 + step) ** -0.55
        sampler.param_groups[0]["lr"] = max(rate * share, 1e-6)
        sampler.param_groups[0]["temperature"] = 1.0 if cycle is None or step % cycle.steps > cycle.steps // 4 else 0.0
        grid.at.grad = grid.pull()
        sampler.step()
        seen.add(grid.nearest())
    return len(seen - {-1})


@pytest.mark.parametrize("seed", range(3))
def test_cycles_visit_all_modes_and_a_decaying_rate_stays(seed: int) -> None:
    cyclical, decaying = visited(seed, 0.07, 30), visited(seed, 0.01, None)
    print(f"modes visited: {cyclical} by cycles, {decaying} at a decaying rate")
    assert cyclical == 25
    assert decaying == 1


@pytest.mark.parametrize(("places", "known"), [(3, 9), (4, 15), (5, 33), (6, 44), (7, 76), (8, 112)])
def test_how_many_networks_a_permutation_needs(places: int, known: int) -> None:
    found = networks_needed(places, trials=1000)
    print(f"{places} places: {found} networks, {known} known")
    assert found == pytest.approx(known, rel=0.3)


@pytest.mark.parametrize(("places", "known"), [(3, 640), (4, 1472), (5, 2368)])
def test_a_threshold_of_zero_needs_many_more(places: int, known: int) -> None:
    found = networks_needed(places, threshold=0.0, trials=1000)
    print(f"{places} places, cut at zero: {found} networks, {known} known")
    assert found == pytest.approx(known, rel=0.3)
