"""Random starting values at addresses, of a key, a name and an element: a repeated run has them again."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from pluria.numbers.key import TRAINING, Key, tensor_id
from pluria.numbers.philox import normals, uniforms, words

Shape = tuple[int, ...]
Model = TypeVar("Model", bound=nn.Module)


def fresh_uniforms(name: str, shape: Shape, key: Key, *, group: int = 0) -> Tensor:
    """Uniforms in [0, 1), float32."""
    count = torch.Size(shape).numel()
    return uniforms(words(key, tensor=tensor_id(name), group=group, stream=TRAINING, start=0, stop=count)).view(shape)


def fresh_normals(name: str, shape: Shape, key: Key, *, group: int = 0) -> Tensor:
    """Standard normals, float32."""
    count = torch.Size(shape).numel()
    return normals(key, tensor=tensor_id(name), group=group, stream=TRAINING, start=0, stop=count).view(shape)


def fresh_order(name: str, count: int, key: Key, *, group: int = 0) -> Tensor:
    """A permutation of 0..count-1, int64."""
    return torch.argsort(fresh_uniforms(name, (count,), key, group=group), stable=True)


def restarted(model: Model, key: Key | int = 0) -> Model:
    """A copy of which each layer that knows its usual start (`reset_parameters`) has a fresh one, drawn from the key.

    Parameters that belong to no such layer stay as they are; the global generator as well.
    """
    key, twin = key if isinstance(key, Key) else Key(key), copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key.seed % 2**63)
        for module in twin.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    return twin
