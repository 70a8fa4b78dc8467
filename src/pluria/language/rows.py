"""Members as rows of one batch: layers that give each row the weights of its member, and read them once for eight.

    tokens [K B, n]  ->  embedding: code + bit of the row's member  ->  ...  ->  linear: one product for K members

Writing token after token is bound by the memory that weights are read from. Floor codes and the bits of eight members
are two bytes per weight, as one bfloat16 model is. Caches, norms and attention see one batch, and need not know.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.calling import place
from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, map_tensors
from pluria.core.model import tensors
from pluria.predict.kernels.operands import BYTE, Planes, planes, spread, unfit
from pluria.predict.kernels.product import product


class Unlike(ValueError):
    """Members as rows do not say what they say by themselves."""


class RowsLinear(nn.Module):
    """A linear layer whose inputs `[K B, ..., D]` are those of one member after the other."""

    def __init__(self, operand: Planes, bias: Tensor | None) -> None:
        super().__init__()
        self.operand, self.bias = operand, bias

    def forward(self, x: Tensor) -> Tensor:
        count = self.operand.count
        if len(x) % count:
            raise ValueError(f"rows of {count} members, as many of each, come to a layer; got {tuple(x.shape)}")
        rows = x.reshape(count, -1, x.shape[-1])
        return product(self.operand, rows, self.bias).reshape(*x.shape[:-1], -1)


class RowsEmbedding(nn.Module):
    """An embedding whose tokens `[K B, n]` are those of one member after the other."""

    def __init__(self, operand: Planes, dtype: torch.dtype) -> None:
        super().__init__()
        self.operand, self.dtype = operand, dtype

    def forward(self, tokens: Tensor) -> Tensor:
        held, words = self.operand, tokens.reshape(self.operand.count, -1)
        member = torch.arange(held.count, device=tokens.device)[:, None].expand_as(words)
        bits = (held.planes[member // BYTE, words] >> (member % BYTE)[..., None].to(torch.uint8)) & 1
        code = held.floor[words].to(torch.float32) + bits
        zero, scale = (spread(table[words], code.shape[-1]) for table in (held.zero, held.scale))
        return ((code - zero) * scale).to(self.dtype).reshape(*tokens.shape, -1)


def in_rows(twin: nn.Module, ensemble: Ensemble, moving: Mapping[str, Family]) -> None:
    """Put such layers into `twin`, in place, for all that differs between members.

    Ask `unserved` first.
    """
    own, device = tensors(twin), place(twin)
    families = {id(own[name]): family for name, family in moving.items()}
    operands: dict[int, Planes] = {}
    layers: dict[int, nn.Module] = {}
    for name, module in _layers(twin):
        if (number := id(module.weight)) not in families:
            continue
        if number not in operands:
            held = planes(families[number], ensemble.members)
            operands[number] = map_tensors(held, lambda tensor: tensor.to(device))
        if id(module) not in layers:
            held = operands[number]
            words = isinstance(module, nn.Embedding)
            layers[id(module)] = RowsEmbedding(held, module.weight.dtype) if words else RowsLinear(held, module.bias)
        twin.set_submodule(name, layers[id(module)])


def unserved(twin: nn.Module, moving: Mapping[str, Family]) -> str | None:
    """Why the members of a network cannot be rows of one batch; None where they can, as far as layers say."""
    settings: Mapping[str, Any] = twin.config.to_dict()  # type: ignore[union-attr, operator]
    if any("expert" in name and isinstance(value, int) and value > 1 for name, value in settings.items()):
        return "its experts take rows out of their order"
    if settings.get("is_encoder_decoder"):
        return "it has an encoder"
    own, layers = tensors(twin), [module for _, module in _layers(twin)]
    plain, weights = set(map(id, layers)), {id(module.weight) for module in layers}
    kinds = {id(own[name]): (name, family) for name, family in moving.items()}
    for module in twin.modules():
        for key, value in module.named_parameters(recurse=False) if id(module) not in plain else ():
            if id(value) in kinds:
                name, kind = kinds[id(value)][0], type(module).__name__
                return f"{name!r} differs between members, and is {key!r} of {kind}, no plain layer"
    for number, (name, family) in kinds.items():
        if number not in weights:
            return f"{name!r} differs between members, and is the weight of no layer"
        if (why := unfit(family)) is not None:
            return f"{name!r}: {why}"
    return None


def _layers(twin: nn.Module) -> list[tuple[str, Any]]:
    """Plain linear layers and embeddings; subclasses may use their weight in another way."""
    every = twin.named_modules(remove_duplicate=False)
    return [(name, module) for name, module in every if type(module) in (nn.Linear, nn.Embedding)]
