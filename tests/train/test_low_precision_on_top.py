"""Low precision on top of what training leaves: each member is rounded around its own base, without bias."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pluria
from pluria.core.ensemble import Ensemble
from pluria.train import IVON, SGLD, SWAG, Collector, Snapshots, cycles, every, independent, train

FORMAT, DRAWS = "int4", 400


def net(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3))


def batches(epoch: int) -> list[tuple[Tensor, Tensor]]:
    x = torch.randn(6, 16, 4, generator=torch.Generator().manual_seed(epoch))
    return [(each, (each[:, 0] > 0).long() + (each[:, 1] > 0).long()) for each in x]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def collected(collector: Collector, optimiser: Callable[[nn.Module], torch.optim.Optimizer]) -> Ensemble:
    model = net()
    optimizer = optimiser(model)
    run = train(model, batches, loss, optimizer=optimizer, epochs=2, collectors={"it": collector},
                scheduler=cycles(12, 3).scheduler(optimizer))  # fmt: skip
    options = {"members": 1, "scale": 0} if isinstance(collector, SWAG) else {}
    return collector.ensemble(run.states["it"], **options)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.2)


def langevin(model: nn.Module) -> torch.optim.Optimizer:
    return SGLD(model.parameters(), 0.2, data_size=96)


def variational() -> Ensemble:
    model = net()
    train(model, batches, loss, optimizer=IVON(model.parameters(), 1.0, data_size=96), epochs=2)
    return pluria.single(pluria.params_of(model))


def fitted(model: nn.Module, number: int) -> nn.Module:
    train(model, batches, loss, optimizer=sgd(model), epochs=1)
    return model


BASES: dict[str, Callable[[], Ensemble]] = {
    "snapshots": lambda: collected(Snapshots(cycles(12, 3).ends), sgd),
    "cyclical SGLD": lambda: collected(Snapshots(lambda step: cycles(12, 3).samples(step, share=0.5)), langevin),
    "SWAG mean": lambda: collected(SWAG(3, every(2)), sgd),
    "IVON mean": variational,
    "deep ensemble": lambda: independent((net(seed) for seed in range(3)), fitted),
}


def rounded(base: Ensemble, members: int) -> Ensemble:
    return pluria.low_precision(base, format=FORMAT, members=members, roles=pluria.roles(net()), key=3)


def farthest(drawn: Ensemble, base: Ensemble) -> float:
    """Largest distance of a draw from the base it is said to be of, in steps of the base's grid."""
    found = 0.0
    for place, member in enumerate(drawn.members):
        own, value = base.params(base.members[place % len(base)])["3.weight"], drawn.params(member)["3.weight"]
        step = own.abs().amax(1, keepdim=True) / 7
        found = max(found, float(((value - own).abs() / step).max()))
    return found


@pytest.mark.parametrize("name", BASES)
def test_members_are_rounded_in_turn_and_without_bias(name: str) -> None:
    base = BASES[name]()
    drawn = rounded(base, DRAWS * len(base))
    assert farthest(drawn.take(range(4 * len(base))), base) < 1 + 1e-4
    for place, member in enumerate(base.members):
        own = base.params(member)
        draws = torch.stack([drawn.params(m)["3.weight"] for m in drawn.members[place :: len(base)]])
        assert len(draws.unique(dim=0)) > 1
        step = own["3.weight"].abs().amax(1, keepdim=True) / 7
        assert float(((draws.mean(0) - own["3.weight"]).abs() / step).max()) < 4 * 0.5 / DRAWS**0.5
        assert torch.equal(drawn.params(drawn.members[place])["3.bias"], own["3.bias"])


def test_draws_around_another_member_are_seen() -> None:
    base = BASES["deep ensemble"]()
    assert farthest(rounded(base, 6), base.take([1, 2, 0])) > 2
