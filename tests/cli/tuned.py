"""A base and its fine-tunes on the digits as files, and what tests of merges ask of them."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from pluria import stack
from pluria.core.params import Params
from pluria.predict import gather, predict
from pluria.zoo import network

NETWORK = ("--model", "mlp", "--argument", "inputs=64", "--argument", "classes=10", "--argument", "hidden=[12]")
MODELS = ("0.safetensors", "1.safetensors", "2.safetensors")
BASE = ("--base", "base.safetensors")


def model() -> torch.nn.Module:
    return network("mlp", inputs=64, classes=10, hidden=[12])


def held() -> list[tuple[torch.Tensor, torch.Tensor]]:
    rows = np.load("held.npz")
    return [(torch.from_numpy(rows["x"]), torch.from_numpy(rows["y"]))]


def loss(params: Params) -> float:
    outputs, targets = gather(predict(model(), stack([params]), held()))
    assert targets is not None
    return float(cross_entropy(outputs[0], targets))


def same(one: Params, other: Params) -> bool:
    return set(one) == set(other) and all(torch.equal(value, other[name]) for name, value in one.items())
