"""Where each training starts, bit for bit; and that a star's members do not wait for each other."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pluria.core.errors import CheckpointError
from pluria.core.params import params_of
from pluria.train import chain, independent, local, star

Seen = dict[int, dict[str, torch.Tensor]]


class Fit:
    """A training that adds the member's number and one, and notes where it starts."""

    def __init__(self) -> None:
        self.starts: Seen = {}

    def __call__(self, model: nn.Module, number: int) -> nn.Module:
        self.starts[number] = params_of(model)
        with torch.no_grad():
            for value in model.parameters():
                value.add_(number + 1)
        return model


def net() -> nn.Linear:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Linear(2, 2)


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


def test_a_star_starts_every_member_but_the_first_from_the_first() -> None:
    fit, model = Fit(), net()
    ensemble = star(model, fit, members=4)
    assert equal(fit.starts[0], params_of(net()))
    assert all(equal(fit.starts[number], ensemble.params(0)) for number in (1, 2, 3))
    assert equal(params_of(model), params_of(net()))


def test_a_chain_starts_each_member_from_the_one_before() -> None:
    fit = Fit()
    ensemble = chain(net(), fit, members=3)
    assert equal(fit.starts[0], params_of(net()))
    assert all(equal(fit.starts[number], ensemble.params(number - 1)) for number in (1, 2))


def test_local_and_independent_members() -> None:
    fit = Fit()
    local(net(), fit, members=3)
    assert all(equal(start, params_of(net())) for start in fit.starts.values())
    fit, others = Fit(), [net(), nn.Linear(2, 2)]
    independent(others, fit)
    assert all(equal(fit.starts[number], params_of(model)) for number, model in enumerate(others))


def test_nan_and_no_members_are_refused() -> None:
    def broken(model: nn.Module, number: int) -> nn.Module:
        next(model.parameters()).data.fill_(float("nan") if number == 1 else 0.0)
        return model

    with pytest.raises(CheckpointError, match="NaN or Inf in member 1"):
        star(net(), broken, members=2)
    with pytest.raises(ValueError, match="no members to train"):
        chain(net(), Fit(), members=0)
