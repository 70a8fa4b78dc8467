"""Barriers on the straight line: known answers for losses that are known, and what one layer alone does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.laws import same_bits
from pluria.check import barrier, barrier_profile, member_losses, modules_of
from pluria.core.ensemble import Ensemble, single
from pluria.core.errors import CheckpointError
from pluria.core.params import params_of
from pluria.zoo import network


def ends() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    one = {"a.weight": torch.tensor([1.0]), "b.weight": torch.tensor([1.0])}
    return one, {name: -value for name, value in one.items()}


def product(ensemble: Ensemble) -> list[float]:
    """(a b - 1)^2: both ends are perfect, and the middle is not."""
    return [float((p["a.weight"] * p["b.weight"] - 1).square()) for p in ensemble]


def test_a_line_by_hand() -> None:
    found = barrier(*ends(), product, steps=5)
    # a = b = 1 - 2 s at the shares s = 0, 1/4, 1/2, 3/4, 1.
    assert found.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.losses.tolist() == [0, 0.75**2, 1, 0.75**2, 0]
    assert found.height == 1


def test_a_slope_is_no_barrier() -> None:
    assert barrier(*ends(), lambda e: [float(p["a.weight"]) for p in e]).height == pytest.approx(0, abs=1e-6)


def test_each_layer_by_hand() -> None:
    found = barrier_profile(*ends(), product, steps=3)
    # One layer alone goes from 1 to -1 while the other stays at 1 or -1: the loss rises to 4 where the signs differ.
    assert found == {"a": (4, 4), "b": (4, 4)}


def test_no_layer_gives_the_ends_and_all_layers_the_whole() -> None:
    found = barrier_profile(*ends(), product, layers={"none": [], "all": ["a.weight", "b.weight"]}, steps=5)
    assert found["none"] == (0, 0)
    assert found["all"] == (barrier(*ends(), product, steps=5).height,) * 2


def test_losses_of_members_are_those_of_the_loaded_networks() -> None:
    models = [network("mlp", inputs=6, classes=3, hidden=[5], seed=seed) for seed in (0, 1)]
    x, y = torch.randn(20, 6), torch.arange(20) % 3
    batches = [(x[:12], y[:12]), (x[12:], y[12:])]
    losses = member_losses(models[0], batches)
    found = barrier(params_of(models[0]), params_of(models[1]), losses, steps=3)
    with torch.no_grad():
        wanted = [float(torch.nn.functional.cross_entropy(model(x), y)) for model in models]
    assert found.losses[[0, 2]].tolist() == pytest.approx(wanted, rel=1e-6)


def test_what_is_done_first_is_done_to_every_member() -> None:
    seen: list[int] = []

    def change(ensemble: Ensemble) -> Ensemble:
        seen.append(len(ensemble))
        return ensemble

    model = network("mlp", inputs=6, classes=3, hidden=[5])
    losses = member_losses(model, [(torch.randn(4, 6), torch.tensor([0, 1, 2, 0]))], change=change)
    assert len(losses(single(params_of(model)))) == 1
    assert seen == [1]


def test_layers_are_modules() -> None:
    model = network("small_cnn")
    found = modules_of(params_of(model))
    assert found["norm1"] == ["norm1.weight", "norm1.bias", "norm1.running_mean", "norm1.running_var"]
    assert list(modules_of({"scale": torch.ones(1)})) == ["scale"]


def test_the_ends_are_left_as_they_were() -> None:
    one, other = ends()
    barrier_profile(one, other, product)
    assert all(same_bits(one[name], value) for name, value in ends()[0].items())


def test_mistakes_are_told() -> None:
    one, other = ends()
    with pytest.raises(ValueError, match="a path needs two points and two steps"):
        barrier(one, other, product, steps=1)
    with pytest.raises(CheckpointError, match="1 missing"):
        barrier(one, {"a.weight": one["a.weight"]}, product)
    with pytest.raises(ValueError, match="a layer has a tensor 'c' that the networks lack"):
        barrier_profile(one, other, product, layers={"x": ["c"]})
