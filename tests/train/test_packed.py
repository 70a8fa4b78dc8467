"""A packed ensemble is M narrow networks; widths that do not divide are refused by name."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from pluria.train import packed_ensemble
from train.test_population import data, outputs, trained


def wide() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Flatten(), nn.Linear(144, 3)
    )


def test_members_are_separate_narrow_networks() -> None:
    population = trained(packed_ensemble(wide(), members=4, alpha=2.0))
    assert population.network[0].weight.shape == (4, 2, 3, 3)
    assert population.network[5].weight.shape == (3, 72)
    ensemble = population.ensemble()
    for member in range(4):
        alone = copy.deepcopy(population.network).eval()
        alone.load_state_dict(ensemble.params(member))
        with torch.no_grad():
            assert torch.equal(alone(data()[0]), population(data()[0], member=member))
    assert outputs(population.network, ensemble).shape == (4, 20, 3)


def test_starts_differ_and_repeat_and_leave_the_global_generator() -> None:
    model, before = wide(), torch.get_rng_state()
    one, other = (packed_ensemble(model, members=2, key=3).parts["3/weight"].values for _ in range(2))
    assert torch.equal(one, other)
    assert not torch.equal(one[0], one[1])
    assert torch.equal(before, torch.get_rng_state())


def test_groups_divide_hidden_convolutions() -> None:
    population = packed_ensemble(wide(), members=2, alpha=2.0, gamma=2)
    assert population.network[3].weight.shape == (16, 4, 1, 1)
    assert population.network[0].groups == 1
    assert torch.isfinite(population(data()[0])).all()


def test_parameters_follow_the_rule() -> None:
    model = nn.Sequential(*(nn.Conv2d(32, 32, 3, bias=False) for _ in range(5)))
    members, alpha, gamma = 4, 2.0, 2
    population = packed_ensemble(model, members=members, alpha=alpha, gamma=gamma)
    hidden = [population.network[i].weight.numel() / model[i].weight.numel() for i in (1, 2, 3)]
    assert hidden == [alpha**2 / members**2 / gamma] * 3


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 2))
    model[0].requires_grad_(False)
    return model


def same() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Sequential(nn.Linear(4, 10), nn.Linear(10, 2)), "0: a width of 10 times 0.25 is 2.5"),
        (nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2)), "1 is a LayerNorm"),
        (nn.Sequential(nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(8, 8, 1)), "0 is a Conv2d; only Linear and plain"),
        (frozen(), "begins anew and keeps nothing, but these are frozen: 0.weight, 0.bias"),
        (same(), "narrows each layer by itself, but these are tied: 1.weight to 0.weight"),
        (nn.ReLU(), "a packed ensemble needs weights"),
    ],
)
def test_what_cannot_be_narrowed_is_named(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        packed_ensemble(model, members=4, alpha=1.0)
