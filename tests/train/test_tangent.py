"""Tangent networks are linear: the mean of steps is the mean of answers."""

from __future__ import annotations

import pytest
import torch

from pluria.train import Tangent, compose
from train.test_population import data, net


def stepped(seed: int) -> Tangent:
    made = Tangent(net())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in made.steps.values():
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
    return made


def test_at_the_start_it_is_the_network() -> None:
    with torch.no_grad():
        assert torch.allclose(Tangent(net()).train()(data()[0]), net()(data()[0]), atol=1e-6)


def test_the_mean_of_steps_is_the_mean_of_answers() -> None:
    members = [stepped(seed) for seed in range(4)]
    with torch.no_grad():
        answers = torch.stack([member(data()[0]) for member in members])
        assert torch.allclose(compose(members)(data()[0]), answers.mean(0), atol=1e-5)
        weighted = compose(members, [0.4, 0.0, -0.2, 0.8])(data()[0])
        assert torch.allclose(
            weighted, torch.tensordot(torch.tensor([0.4, 0.0, -0.2, 0.8]), answers, dims=1), atol=1e-5
        )
        assert torch.allclose(compose(members[1:])(data()[0]), answers[1:].mean(0), atol=1e-5)


def test_small_steps_are_those_of_the_network() -> None:
    made, model = stepped(0), net()
    with torch.no_grad():
        for value in made.steps.values():
            value.mul_(1e-3)
        for name, value in model.named_parameters():
            value.add_(made.params()[name])
        assert torch.allclose(made(data()[0]), model(data()[0]), atol=1e-4)
        assert not torch.allclose(net()(data()[0]), model(data()[0]), atol=1e-4)


def test_steps_learn_and_the_point_stays() -> None:
    made = Tangent(net()).train()
    torch.autograd.backward(made(data()[0]).square().mean())
    assert all(value.grad is not None for value in made.steps.values())
    assert not made.network.training
    assert torch.equal(made.network[1].running_mean, net()[1].running_mean)


def test_what_is_frozen_has_no_step() -> None:
    model = net()
    model[4].weight.requires_grad_(False)
    made = Tangent(model)
    assert "4.weight" not in made.params()
    assert "4.bias" in made.params()
    torch.autograd.backward(made(data()[0]).square().mean())
    with torch.no_grad():
        for value in made.steps.values():
            value.sub_(0.1 * value.grad)
        joined = compose([made, made])
        assert joined.names == made.names
        assert torch.allclose(joined(data()[0]), made(data()[0]), atol=1e-6)
    with pytest.raises(ValueError, match="all parameters of the network are frozen"):
        Tangent(net().requires_grad_(False))


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="nothing to compose"):
        compose([])
    with pytest.raises(ValueError, match="1 members and 2 weights"):
        compose([stepped(0)], [0.5, 0.5])
    other = stepped(1)
    with torch.no_grad():
        other.network[0].weight.add_(1)
    with pytest.raises(ValueError, match="at different points"):
        compose([stepped(0), other])
