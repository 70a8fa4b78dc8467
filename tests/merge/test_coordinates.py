"""Coefficients fitted by gradient: the chain rule, learned soups, soft merging, manifold mixing, evolution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pluria.core.ensemble import Ensemble, stack
from pluria.core.params import Params, params_of
from pluria.merge import (
    combined,
    evolved_soup,
    fit_coordinates,
    greedy_soup,
    leafwise,
    learned_soup,
    linear,
    manifold_mixing,
    objective_of,
    soft_gates,
    soft_merge,
)
from pluria.zoo.mlp import mlp

DRAW = torch.Generator().manual_seed(0)
X = torch.randn(60, 6, generator=DRAW)
Y = torch.randint(3, (60,), generator=DRAW)


def nll(model: nn.Module) -> Tensor:
    return cross_entropy(model(X), Y)


def networks(count: int, spread: float = 0.4) -> tuple[nn.Module, Ensemble]:
    """A network, and copies of it with noise on every tensor, the first less than the last."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = mlp(6, 3, hidden=[5])
    draw = torch.Generator().manual_seed(2)
    base = params_of(model)
    noisy = [
        {n: v + spread * (k + 1) * torch.randn(v.shape, generator=draw) for n, v in base.items()} for k in range(count)
    ]
    return model, stack(noisy)


def whole(name: str) -> int:
    return 0


def layer(name: str) -> str:
    return name.split(".")[0]


@pytest.mark.parametrize("with_base", [False, True])
@pytest.mark.parametrize("groups", [None, whole, layer])
def test_slopes_are_those_of_finite_differences(groups: object, with_base: bool) -> None:
    model, ensemble = networks(3)
    model, wide = model.double(), stack([{n: v.double() for n, v in member.items()} for member in ensemble])
    base = params_of(model) if with_base else None
    objective = objective_of(model, lambda network: cross_entropy(network(X.double()), Y))
    shape = ({None: 4, whole: 1, layer: 2}[groups], 3)  # type: ignore[index]
    start = torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    taken: list[Tensor] = []

    def keep(tensors: list[Tensor]) -> torch.optim.Optimizer:
        taken.extend(tensors)
        return torch.optim.SGD(tensors, lr=0.0)

    fit_coordinates(wide, objective, start, lambda raw, _: raw, groups=groups, base=base, steps=1, optimiser=keep)  # type: ignore[arg-type]
    found = taken[0].grad
    assert found is not None
    for place in [(0, 0), (shape[0] - 1, 1), (0, 2)]:
        ends = []
        for sign in (-1, 1):
            moved = start.clone()
            moved[place] += sign * 1e-6
            ends.append(objective(combined(wide, moved, groups=groups, base=base))[0])  # type: ignore[arg-type]
        assert float(found[place]) == pytest.approx((ends[1] - ends[0]) / 2e-6, rel=1e-5, abs=1e-8)


def test_tied_tensors_count_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2, bias=False)
            self.two = self.one

        def forward(self, x: Tensor) -> Tensor:
            return self.two(self.one(x))  # type: ignore[no-any-return]

    model = Tied().double()
    ensemble = stack([params_of(model)])
    objective = objective_of(model, lambda network: network(torch.ones(1, 2, dtype=torch.float64)).sum())
    taken: list[Tensor] = []

    def keep(tensors: list[Tensor]) -> torch.optim.Optimizer:
        taken.extend(tensors)
        return torch.optim.SGD(tensors, lr=0.0)

    one = torch.ones(1, 1, dtype=torch.float64)
    fit_coordinates(ensemble, objective, one, lambda raw, _: raw, groups=whole, steps=1, optimiser=keep)
    value = objective(ensemble.params(0))[0]
    assert float(taken[0].grad) == pytest.approx(2 * value)  # type: ignore[arg-type]  # homogeneous of degree two


def test_combined_takes_any_sign_and_starts_from_a_base() -> None:
    two = stack(
        [{"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(3)}, {"w": torch.tensor([3.0, 5.0]), "n": torch.tensor(3)}]
    )
    assert combined(two, torch.tensor([[2.0, -1.0]]))["w"].tolist() == [-1.0, -1.0]
    base = {"w": torch.tensor([1.0, 1.0]), "n": torch.tensor(3)}
    made = combined(two, torch.tensor([[2.0, -1.0]]), base=base)
    assert made["w"].tolist() == [-1.0, -1.0]
    assert made["n"] == 3
    assert combined(two, torch.tensor([[0.0, 0.5]]), base=base)["w"].tolist() == [2.0, 3.0]
    with pytest.raises(ValueError, match=r"coefficients are \[1, 2\] for these groups; got \[2, 1\]"):
        combined(two, torch.ones(2, 1))


def quadratic(target: Tensor, curvature: Tensor) -> object:
    """A loss of one tensor `w` whose best point is known."""

    def objective(params: Params) -> tuple[float, Params]:
        off = params["w"].double() - target
        return float((curvature * off.square()).sum() / 2), {"w": curvature * off}

    return objective


def test_a_learned_soup_finds_the_best_share() -> None:
    ends = torch.tensor([[0.0, 0.0], [1.0, 3.0]], dtype=torch.float64)
    curvature = torch.tensor([1.0, 2.0], dtype=torch.float64)
    # On the line between, L(c) = ((c - .5)^2 + 2 (3 c - 2)^2) / 2, least at c = 12.5 / 19.
    objective = quadratic(torch.tensor([0.5, 2.0], dtype=torch.float64), curvature)
    soup = learned_soup(stack([{"w": end} for end in ends]), objective, steps=400)  # type: ignore[arg-type]
    torch.testing.assert_close(soup["w"], ends[1] * (12.5 / 19), rtol=1e-3, atol=0)
    mean = learned_soup(stack([{"w": end} for end in ends]).reweight(torch.tensor([3.0, 1.0])), objective, steps=0)  # type: ignore[arg-type]
    torch.testing.assert_close(mean["w"], ends[1] / 4)


def test_a_learned_soup_of_networks_is_better_than_their_mean() -> None:
    model, ensemble = networks(4)
    objective = objective_of(model, nll)
    before = params_of(model)
    uniform = objective(leafwise(ensemble, linear()))[0]
    by_layer = objective(learned_soup(ensemble, objective, groups=layer, steps=60))[0]
    by_tensor = objective(learned_soup(ensemble, objective, steps=60))[0]
    assert by_tensor < by_layer < uniform
    assert all(torch.equal(value, before[name]) for name, value in params_of(model).items())


def test_a_loss_that_is_not_finite_is_refused() -> None:
    _, ensemble = networks(2)
    with pytest.raises(ValueError, match="the loss is nan at step 0"):
        learned_soup(ensemble, lambda params: (float("nan"), params), steps=1)


def test_a_wild_member_is_shut_out() -> None:
    model, ensemble = networks(3, spread=0.1)
    wild = {name: value * 1e3 for name, value in ensemble.params(1).items()}
    poisoned = stack([ensemble.params(0), wild, ensemble.params(2)])
    objective = objective_of(model, nll)
    gates = soft_gates(poisoned, objective, groups=whole, steps=200, penalty=0.01, rate=0.1)
    assert float(gates[0, 1]) == 0.0
    assert float(gates[0, [0, 2]].min()) > 0.1
    merged = soft_merge(poisoned, objective, groups=whole, steps=200, penalty=0.01, rate=0.1)
    clean = objective(leafwise(ensemble.take([0, 2]), linear()))[0]
    assert objective(merged)[0] < clean + 0.05 < objective(leafwise(poisoned, linear()))[0]


def test_gates_follow_their_key_alone() -> None:
    model, ensemble = networks(3)
    objective = objective_of(model, nll)
    state = torch.random.get_rng_state()
    one, same, other = (soft_gates(ensemble, objective, steps=5, key=key) for key in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.random.get_rng_state())


def test_where_all_gates_shut_the_mean_stays() -> None:
    ends = stack([{"w": torch.tensor([1.0])}, {"w": torch.tensor([3.0])}])
    merged = soft_merge(ends, lambda params: (0.0, {}), penalty=10.0, steps=400, rate=0.1)
    assert merged["w"].tolist() == [2.0]


def test_manifold_mixing_without_steps_is_the_greedy_soup() -> None:
    model, ensemble = networks(5)
    objective = objective_of(model, nll)

    def loss(params: Params) -> float:
        return objective(params)[0]

    greedy, mixed = greedy_soup(ensemble, loss), manifold_mixing(ensemble, loss, objective, groups=whole, steps=0)
    for name, value in greedy.items():
        torch.testing.assert_close(mixed[name], value)
    fitted = loss(manifold_mixing(ensemble, loss, objective, groups=layer, steps=20))
    assert fitted < loss(greedy)


def test_evolution_finds_what_the_gradient_finds() -> None:
    ends = torch.tensor([[0.0, 0.0], [1.0, 3.0]], dtype=torch.float64)
    objective = quadratic(torch.tensor([0.5, 2.0], dtype=torch.float64), torch.tensor([1.0, 2.0], dtype=torch.float64))
    calls = []

    def loss(params: Params) -> float:
        calls.append(1)
        return objective(params)[0]  # type: ignore[operator, no-any-return]

    soup = evolved_soup(stack([{"w": end} for end in ends]), loss, population=10, generations=20, key=3)
    torch.testing.assert_close(soup["w"], ends[1] * (12.5 / 19), rtol=0.02, atol=0)
    assert len(calls) == 10 * 21
    again = evolved_soup(stack([{"w": end} for end in ends]), loss, population=10, generations=20, key=3)
    assert torch.equal(again["w"], soup["w"])
    mean = evolved_soup(
        stack([{"w": end} for end in ends]), lambda params: abs(float(params["w"].sum()) - 2.0), generations=0
    )
    assert mean["w"].tolist() == [0.5, 1.5]
    with pytest.raises(ValueError, match="five or more in a population"):
        evolved_soup(stack([{"w": end} for end in ends]), loss, population=4)
