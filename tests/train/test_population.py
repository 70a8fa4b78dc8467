"""Populations: members equal their explicit networks, conversion is exact, shared gradients are sums."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.core.params import params_of
from pluria.predict import gather, predict
from pluria.train import (
    OwnPart,
    Part,
    Population,
    SharedPart,
    batch_ensemble,
    late_phase,
    lora,
    scale_common,
)
from pluria.zoo import network
from train.runs import tied

KINDS = {
    "batch ensemble": lambda model: batch_ensemble(model, members=3, init="ones"),
    "lora": lambda model: lora(model, members=3, rank=2),
    "late norm": lambda model: late_phase(model, members=3),
    "late last": lambda model: late_phase(model, members=3, kind="last"),
    "late rank1": lambda model: late_phase(model, members=3, kind="rank1"),
    "late hyper": lambda model: late_phase(model, members=3, kind="hyper", size=4),
}
each = pytest.mark.parametrize("kind", KINDS)


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 3)
        )
        made[1].running_mean.normal_()
        return made.eval()


def data(seed: int = 0, count: int = 20) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, 5, 5, generator=generator), torch.randint(3, (count,), generator=generator)


def trained(population: Population, steps: int = 8) -> Population:
    """A few steps, each member on data of its own."""
    optimizer = torch.optim.SGD([p for p in population.parameters() if p.requires_grad], 0.1)
    population.train()
    for step in range(steps):
        optimizer.zero_grad()
        for member in range(population.members):
            x, y = data(100 * step + member)
            torch.autograd.backward(F.cross_entropy(population(x, member=member), y))
        optimizer.step()
    return population.eval()


def outputs(model: nn.Module, ensemble: Ensemble) -> Tensor:
    return gather(predict(model, ensemble, [data()[0]]))[0]


@each
def test_before_training_every_member_is_the_original(kind: str) -> None:
    model = net()
    population = KINDS[kind](model).eval()
    with torch.no_grad():
        assert torch.equal(population(data()[0]), model(data()[0]).expand(3, -1, -1))
    assert torch.equal(outputs(model, population.ensemble()), model(data()[0]).detach().expand(3, -1, -1))


@each
def test_trained_members_are_members_of_the_original_network(kind: str) -> None:
    model = net()
    before = params_of(model)
    population = trained(KINDS[kind](model))
    found = outputs(model, population.ensemble())
    with torch.no_grad():
        assert torch.allclose(found, population(data()[0]), atol=1e-5)
    assert not torch.allclose(found[0], found[1], atol=1e-4)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@each
def test_the_average_is_one_network_and_one_member_is_its_own(kind: str) -> None:
    population = trained(KINDS[kind](net()))
    assert len(population.average()) == 1
    assert torch.isfinite(outputs(net(), population.average())).all()
    alone = Population(net(), members=1)
    assert torch.equal(alone.average().params(0)["0.weight"], net()[0].weight)


def test_batch_ensemble_is_w_times_an_outer_product() -> None:
    model = net()
    found = batch_ensemble(model, members=2, init="sign", key=3).ensemble().params(1)["4.weight"]
    ratio = found / model[4].weight.detach()
    assert torch.equal(ratio.round().abs(), torch.ones_like(ratio))
    assert torch.linalg.matrix_rank(ratio.round()) == 1
    kernel = batch_ensemble(model, members=2, key=3).ensemble().params(0)["0.weight"] / model[0].weight.detach()
    assert torch.allclose(kernel, kernel[..., :1, :1].expand_as(kernel), rtol=1e-4)


def test_lora_moves_only_its_factors() -> None:
    model = net()
    population = trained(lora(model, members=2, rank=2, where=("4.weight",), own=("6.weight", "6.bias"), scale=4.0))
    first, second = population.ensemble().params(0), population.ensemble().params(1)
    assert torch.equal(first["0.weight"], model[0].weight)
    assert torch.linalg.matrix_rank((first["4.weight"] - model[4].weight).detach(), atol=1e-5) == 2
    assert not torch.equal(first["6.weight"], second["6.weight"])
    with pytest.raises(ValueError, match=r"ends with query; there are 4\.weight, 6\.weight"):
        lora(model, members=2, where=("query",))


def test_shared_gradients_are_gamma_times_the_sum() -> None:
    model, gamma = net(), 0.25
    population = late_phase(model, members=3, kind="last")
    for member in range(3):
        torch.autograd.backward(F.cross_entropy(population(data(member)[0], member=member), data(member)[1]))
    scale_common(population, gamma)
    grads = []
    for member in range(3):
        twin = copy.deepcopy(model)
        torch.autograd.backward(F.cross_entropy(twin(data(member)[0]), data(member)[1]))
        grads.append(twin[4].weight.grad)
    part = population.parts["4/weight"]
    wanted = gamma * torch.stack([grad for grad in grads if grad is not None]).sum(0)
    assert torch.allclose(part.value.grad, wanted, atol=1e-6)
    own = population.parts["6/weight"]
    assert own.values.grad.shape[0] == 3
    assert len(population.common()) == 6


def test_statistics_of_batch_norm_are_each_members_own() -> None:
    population = late_phase(net(), members=2).train()
    population(data(1)[0], member=1)
    values = population.ensemble().families["1.running_mean"]
    assert torch.equal(values.values[0], net()[1].running_mean)  # type: ignore[attr-defined]
    assert not torch.equal(values.values[1], net()[1].running_mean)  # type: ignore[attr-defined]


def test_noise_of_replicas_is_relative_to_their_size() -> None:
    population = late_phase(net(), members=400, kind="last", sigma=0.5)
    drawn = population.parts["6/weight"].values.detach() - net()[6].weight.detach()
    assert float(drawn.std()) == pytest.approx(0.5 * float(net()[6].weight.detach().square().mean().sqrt()), rel=0.05)


def test_tied_tensors_are_one_part_and_populations_save_and_load() -> None:
    model = tied()
    population = batch_ensemble(model, members=2)
    assert len(population.parts) == len(set(population.ties.values()))
    other = batch_ensemble(model, members=2, key=9)
    other.load_state_dict(population.state_dict())
    ensemble = other.ensemble()
    assert ensemble.families["first.weight"] is ensemble.families["second.weight"]
    assert torch.equal(ensemble.params(1)["first.weight"], population.ensemble().params(1)["first.weight"])


def test_layers_that_are_missing_are_named() -> None:
    with pytest.raises(ValueError, match="BatchEnsemble needs weights of linear or conv layers"):
        batch_ensemble(nn.ReLU(), members=2)
    with pytest.raises(ValueError, match="LoRA needs weights of linear layers"):
        lora(nn.Conv2d(1, 1, 1), members=2)
    with pytest.raises(ValueError, match="need norm layers with affine numbers"):
        late_phase(nn.Linear(2, 2), members=2)
    with pytest.raises(ValueError, match=r"parts for tensors .* does not have: x"):
        Population(nn.Linear(2, 2), members=2, parts={"x": OwnPart(torch.zeros(1), 2)})
    with pytest.raises(ValueError, match="one member or more"):
        Population(nn.Linear(2, 2), members=0)
    with pytest.raises(IndexError, match="member 2 does not exist"):
        Population(nn.Linear(2, 2), members=2)(torch.zeros(1, 2), member=2)
    with pytest.raises(ValueError, match="'ones', 'sign' or 'normal'; got 'no'"):
        batch_ensemble(nn.Linear(2, 2), members=2, init="no")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the kinds norm, last"):
        late_phase(nn.Linear(2, 2), members=2, kind="no")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"no parameter .* ends with haed\.weight, which `own` names"):
        lora(net(), members=2, own=("6.bias", "haed.weight"))
    with pytest.raises(ValueError, match="sigma is 0 or more and size 1 or more; got -1 and 8"):
        late_phase(net(), members=2, sigma=-1)
    with pytest.raises(ValueError, match="rank of an update"):
        lora(nn.Linear(2, 2), members=2, rank=0)


class Sum(Part):
    """One parameter as the sum of what is shared and a member's own."""

    def __init__(self, value: Tensor, members: int) -> None:
        super().__init__()
        self.shared, self.own = nn.Parameter(value.clone()), nn.Parameter(torch.zeros(members, *value.shape))

    def forward(self, member: int) -> Tensor:
        return self.shared + self.own[member]

    def common(self) -> list[nn.Parameter]:
        return [self.shared]

    def mean(self) -> Tensor:
        return (self.shared + self.own.mean(0)).detach()


@pytest.mark.parametrize("members", [1, 2, 5])
def test_noise_of_a_late_phases_average_falls_as_one_over_its_members(members: int) -> None:
    # A noisy quadratic, many copies of it: gradients w + N(0, 1/2). The average moves by twice the rate, so its
    # variance is 2 lr s / (2 (1 - lr)) with s = 1 / (2 K): 0.125 / K at a rate of 0.2.
    model = nn.Linear(3000, 1, bias=False)
    population = Population(model, members=members, parts={"weight": Sum(torch.zeros(1, 3000), members)})
    optimizer = torch.optim.SGD([p for p in population.parameters() if p.requires_grad], 0.2)
    generator, seen = torch.Generator().manual_seed(0), []
    for step in range(80):
        optimizer.zero_grad()
        for member in range(members):
            weight, noise = population.params(member)["weight"], torch.randn(1, 3000, generator=generator) * 0.5**0.5
            torch.autograd.backward((weight.square() / 2 + noise * weight).sum())
        scale_common(population, 1 / members)
        optimizer.step()
        seen += [float(population.average().params(0)["weight"].square().mean())] if step >= 30 else []
    assert sum(seen) / len(seen) == pytest.approx(0.125 / members, rel=0.06)


@each
def test_norms_and_layers_in_nested_modules_are_found(kind: str) -> None:
    model = network("cifar_resnet", depth=8).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    population = KINDS[kind](model).eval()
    with torch.no_grad():
        assert torch.equal(population(images), model(images).expand(3, -1, -1))
    owned = {name for name, part in population.parts.items() if not isinstance(part, SharedPart)}
    norms = [name.replace(".", "/") for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    assert {f"{name}/running_mean" for name in norms} <= owned
    assert ({f"{name}/weight" for name in norms} <= owned) is (kind == "late norm")
