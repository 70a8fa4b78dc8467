"""Merges by statistics of data: Fisher, RegMean and RegMean++, AdaMerging, each against what is known of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from pluria.core.ensemble import stack
from pluria.core.params import Params, params_of
from pluria.merge import (
    Rules,
    adamerging,
    fisher,
    fisher_information,
    leafwise,
    linear,
    objective_of,
    regmean,
    regmean_plus,
    surprise,
)
from pluria.sample import moments
from pluria.zoo import network
from pluria.zoo.mlp import mlp


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_layer(weight: Tensor) -> nn.Linear:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False).double()
    made.weight.data.copy_(weight)
    return made


def test_fisher_finds_the_joint_optimum_of_two_quadratics() -> None:
    # Inputs along the axes make the Hessians of the squared error diagonal.
    inputs = [torch.diag(draws(3, seed=seed).abs() + 0.1) for seed in (1, 2)]
    targets = [draws(3, 2, seed=seed) for seed in (3, 4)]
    best = [torch.linalg.lstsq(x, y).solution.T for x, y in zip(inputs, targets, strict=True)]
    tables = [fisher_information(one_layer(w), [x], likelihood="gaussian") for w, x in zip(best, inputs, strict=True)]
    two = stack([{"weight": w} for w in best])
    merged = leafwise(two, fisher(tables, floor=0.0, normalise=False))["weight"]
    joint = torch.linalg.lstsq(torch.cat(inputs), torch.cat(targets)).solution.T
    torch.testing.assert_close(merged, joint)
    assert not torch.allclose(leafwise(two, linear())["weight"], joint, rtol=0.05)


def by_loops(model: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """The Fisher by one backward pass for each example and label."""
    total = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for row in x:
        for label in range(3):
            model.zero_grad()
            logs = model(row[None]).log_softmax(-1)[0]
            logs[label].backward()
            for name, value in model.named_parameters():
                assert value.grad is not None
                total[name] += logs[label].detach().exp() * value.grad.square() / len(x)
    return total


def test_the_fisher_is_that_of_loops_and_batches_change_nothing(tmp_path: object) -> None:
    torch.manual_seed(0)
    model, x = mlp(4, 3, hidden=[5]).double(), draws(9, 4)
    exact = fisher_information(model, [x[:4], x[4:]])
    for name, value in by_loops(model, x).items():
        torch.testing.assert_close(exact[name], value)
    save_file(exact, f"{tmp_path}/fisher.safetensors")
    assert all(torch.equal(value, exact[name]) for name, value in load_file(f"{tmp_path}/fisher.safetensors").items())


def test_drawn_labels_are_unbiased_and_have_addresses() -> None:
    torch.manual_seed(0)
    model, x = mlp(4, 3, hidden=[5]).double(), draws(4, 4).repeat(2000, 1)
    exact = fisher_information(model, [x[:4]])["head.weight"]
    drawn = fisher_information(model, [x], sampled=True, key=1)["head.weight"]
    assert float((drawn - exact).norm() / exact.norm()) < 0.05
    split = fisher_information(model, [x[:3], x[3:]], sampled=True, key=1)["head.weight"]
    torch.testing.assert_close(split, drawn)


def test_floor_scale_and_favour() -> None:
    two = stack([{"w": torch.tensor([1.0, 1.0, 1.0])}, {"w": torch.tensor([3.0, 3.0, 3.0])}])
    tables = [{"w": torch.tensor([0.0, 1.0, 2.0])}, {"w": torch.tensor([0.0, 3.0, 0.0])}]
    assert leafwise(two, fisher(tables, normalise=False))["w"].tolist()[:2] == [2.0, 2.5]
    assert leafwise(two, fisher(tables, floor=0.0))["w"].tolist()[0] == 2.0
    assert leafwise(two, fisher(tables, favour_first=True))["w"].tolist()[::2] == [1.0, 1.0]
    longer = [tables[0], {"w": 1e4 * tables[1]["w"]}]
    one, other = (leafwise(two, fisher(each, floor=0.0))["w"] for each in (tables, longer))
    torch.testing.assert_close(one, other)
    with pytest.raises(ValueError, match="member 1 for 'w' has elements that are negative"):
        fisher([tables[0], {"w": -torch.ones(3)}])
    with pytest.raises(ValueError, match="0 and 1 are not of the same tensors: v, w"):
        fisher([tables[0], {"v": torch.ones(3)}])
    with pytest.raises(ValueError, match=r"'w' has shape \(3,\) and a Fisher of shape \(4,\)"):
        leafwise(two, fisher([{"w": torch.ones(4)}] * 2))


def test_fisher_refuses_outputs_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"outputs \[N, C\] for a batch; got shape \[2, 3, 4\]"):
        fisher_information(nn.Linear(4, 4), [torch.zeros(2, 3, 4)])
    with pytest.raises(ValueError, match="no inputs"):
        fisher_information(nn.Linear(4, 4), [])


def three() -> tuple[list[Tensor], list[Tensor]]:
    """Inputs and weights of three members."""
    inputs = [draws(40, 6, seed=seed) @ draws(6, 6, seed=seed + 10) for seed in range(3)]
    return inputs, [draws(4, 6, seed=seed + 20) for seed in range(3)]


def missed(weight: Tensor, inputs: list[Tensor], weights: list[Tensor]) -> float:
    return float(sum(((x @ (weight - w).T) ** 2).sum() for x, w in zip(inputs, weights, strict=True)))


def test_regmean_is_least_squares_and_monotone() -> None:
    inputs, weights = three()
    grams = [dict(moments(one_layer(w), [x]).second) for w, x in zip(weights, inputs, strict=True)]
    ensemble = stack([{"weight": w} for w in weights])
    made = [leafwise(ensemble, regmean(grams, off=off))["weight"] for off in (0.0, 0.5, 0.9, 0.95, 1.0)]
    errors = [missed(weight, inputs, weights) for weight in made]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 1.05 * errors[-1]
    outputs = torch.cat([x @ w.T for x, w in zip(inputs, weights, strict=True)])
    torch.testing.assert_close(made[-1], torch.linalg.lstsq(torch.cat(inputs), outputs).solution.T)
    diagonal = [{"weight": gram["weight"][0].diagonal().expand(4, 6)} for gram in grams]
    torch.testing.assert_close(made[0], leafwise(ensemble, fisher(diagonal, floor=0.0, normalise=False))["weight"])


def test_where_no_input_speaks_the_mean_stays() -> None:
    inputs, weights = three()
    narrow = [x * torch.tensor([1.0, 1, 1, 1, 0, 0]) for x in inputs]
    grams = [dict(moments(one_layer(w), [x]).second) for w, x in zip(weights, narrow, strict=True)]
    ensemble = stack([{"weight": w} for w in weights])
    made = leafwise(ensemble, regmean(grams, off=1.0))["weight"]
    torch.testing.assert_close(made[:, 4:], leafwise(ensemble, linear())["weight"][:, 4:])
    with pytest.raises(ValueError, match=r"'weight': moments of shape \(1, 3, 3\) do not fit"):
        leafwise(ensemble, regmean([{"weight": torch.eye(3)[None]}] * 3))


def test_convolutions_are_solved_by_their_windows() -> None:
    torch.manual_seed(0)
    models = [nn.Conv2d(4, 6, 3, groups=2, bias=False).double() for _ in range(2)]
    inputs = [draws(5, 4, 6, 6, seed=seed) for seed in range(2)]
    read = [moments(model, [x]) for model, x in zip(models, inputs, strict=True)]
    made = leafwise(
        stack([params_of(model) for model in models]),
        regmean([table.second for table in read], off=1.0, layouts=read[0].layouts),
    )["weight"].requires_grad_()

    def error(weight: Tensor) -> Tensor:
        pairs = zip(models, inputs, strict=True)
        return sum(((nn.functional.conv2d(x, weight, groups=2) - m(x).detach()) ** 2).sum() for m, x in pairs)  # type: ignore[return-value]

    (slope,) = torch.autograd.grad(error(made), made)
    assert float(slope.abs().max()) < 1e-9 * float(error(made).detach())


def test_regmean_plus_reads_the_merged_network() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        models = [mlp(6, 3, hidden=[8, 8]).double() for _ in range(2)]
    inputs = [draws(60, 6, seed=seed) for seed in range(2)]
    ensemble, twin = stack([params_of(model) for model in models]), mlp(6, 3, hidden=[8, 8]).double()

    def measure(params: Params, member: int) -> Params:
        twin.load_state_dict(dict(params))
        return moments(twin, [inputs[member]]).second

    made = regmean_plus(ensemble, measure, off=1.0)
    grams = [measure(made, member) for member in range(2)]
    # Layers before are final when a layer is solved, so with the final network's moments nothing moves.
    again = leafwise(ensemble, regmean(grams, off=1.0))
    for name, value in made.items():
        torch.testing.assert_close(value, again[name])
    once = leafwise(ensemble, regmean([measure(p, k) for k, p in enumerate(ensemble)], off=1.0))
    assert torch.equal(once[next(iter(grams[0]))], made[next(iter(grams[0]))])
    assert not torch.allclose(once["head.weight"], made["head.weight"])


def test_adamerging_walks_down_the_entropy_in_its_box() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network("mlp", inputs=6, classes=3)
    x, base = draws(50, 6).float(), params_of(model)
    labels = (x @ draws(6, 3, seed=9).float()).argmax(1)
    tuned = []
    for seed in range(2):
        model.load_state_dict(base)
        step = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(20 + 10 * seed):
            step.zero_grad()
            cross_entropy(model(x[:40]), labels[:40]).backward()
            step.step()
        tuned.append(params_of(model))
    objective = objective_of(model, lambda net: surprise(net(x[40:])))
    ensemble = stack(tuned)
    still = adamerging(ensemble, objective, base=base, steps=0)
    steps = sum(params["head.weight"] - base["head.weight"] for params in tuned)
    assert torch.allclose(still["head.weight"], base["head.weight"] + 0.3 * steps)
    whole = adamerging(ensemble, objective, base=base, groups=lambda name: 0, steps=20, rate=0.02)
    layers = adamerging(ensemble, objective, base=base, steps=20, rate=0.02)
    assert objective(layers)[0] < objective(still)[0]
    assert objective(whole)[0] < objective(still)[0]
    pinned = adamerging(ensemble, objective, base=base, groups=lambda name: 0, steps=300, rate=0.5)
    ends = [base[n] + sum(t[n] - base[n] for t in tuned) for n in base]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(pinned.values(), ends, strict=True))
    with pytest.raises(ValueError, match="scales start in"):
        adamerging(ensemble, objective, base=base, start=1.5)


def test_adamerging_plus_plus_takes_what_ties_takes() -> None:
    base = {"w": torch.tensor([1.0, 1.0, 1.0])}
    steps = torch.tensor([[3.0, -1.0, 0.1], [1.0, 2.0, 0.2]])  # two of three stay; the second place elects a plus
    pair = stack([{"w": base["w"] + step} for step in steps])
    made = adamerging(pair, lambda params: (0.0, {}), base=base, start=0.5, steps=0, density=0.67)
    assert torch.allclose(made["w"], torch.tensor([1 + 0.5 * (3 + 1), 1 + 0.5 * 2, 1.0]))
    with pytest.raises(ValueError, match="density lies in"):
        adamerging(pair, lambda params: (0.0, {}), base=base, density=0.0)


@pytest.mark.parametrize("rule", [fisher, regmean])
def test_tables_of_another_network_are_refused(rule: Callable[..., Rules]) -> None:
    tables = [{"v.weight": torch.eye(2, dtype=torch.float64)}] * 2
    with pytest.raises(ValueError, match=r"the models have no v\.weight; they have w, \.\.\."):
        leafwise(stack([{"w": torch.eye(2)}] * 2), rule(tables))
