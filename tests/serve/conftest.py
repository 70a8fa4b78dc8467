"""A network of the digits with its members, and its service."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import pluria
from pluria.core.ensemble import Ensemble
from pluria.predict import Part
from pluria.serve.inputs import Wanted
from pluria.serve.limits import Limits
from pluria.serve.panel import Panel, panel
from pluria.zoo import Dataset, network, read
from pluria.zoo.fit import fit
from serve.running import Running, running

SHAPE = (1, 8, 8)
DIGITS = Wanted(SHAPE, mean=(0.3,), std=(0.4,))


@pytest.fixture(scope="session")
def rows() -> Dataset:
    """Digits that no network has seen, as bytes 0..255, scaled as the service scales them."""
    test = read("digits", split="test", mean=[0.3], std=[0.4])
    data = (test.inputs.float() * 255 / 16).round().to(torch.uint8)
    return Dataset(data, test.targets, test.classes, "digits", mean=(0.3,), std=(0.4,))


@pytest.fixture(scope="session")
def model() -> nn.Module:
    train = read("digits", split="train", mean=[0.3], std=[0.4])
    return fit(network("mlp", inputs=64, classes=10), train, epochs=4, batch=64, rate=0.003, seed=0)


@pytest.fixture(scope="session")
def members(model: nn.Module) -> Ensemble:
    return pluria.low_precision(model, format="int3", members=6).reweight(torch.tensor([3.0, 1, 1, 1, 1, 1]))


@pytest.fixture(scope="session")
def digits(model: nn.Module, members: Ensemble) -> Panel:
    return panel([Part(model, members)], SHAPE, classes=list("0123456789"))


@pytest.fixture(scope="module")
def service(model: nn.Module, members: Ensemble) -> Iterator[Running]:
    """A service of its own panel: a panel has one thread."""
    own = panel([Part(model, members)], SHAPE, classes=list("0123456789"))
    with running(own, DIGITS, Limits(body=200_000, wait=0.002)) as held:
        yield held


@pytest.fixture(scope="session")
def saved(members: Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The members as a file that says all about itself."""
    place = tmp_path_factory.mktemp("saved") / "digits.pluria"
    about = {
        "network": {"model": "mlp", "arguments": {"inputs": 64, "classes": 10}},
        "classes": [f"digit {n}" for n in range(10)],
        "inputs": {"mean": [0.3], "std": [0.4], "shape": list(SHAPE)},
    }
    pluria.save(place, members, about=about)
    return place
