"""Members side by side: `torch.func.vmap` over their stacked tensors, for small models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from pluria.core.calling import call, place
from pluria.core.ensemble import Ensemble
from pluria.core.family import Shared, block
from pluria.core.model import tensors


def side_by_side(twin: nn.Module, ensemble: Ensemble) -> Callable[[Sequence[int], Sequence[Any], Any], Tensor]:
    """A function (members, the inputs of each, output) -> outputs `[k, n, ...]` that runs them in one call.

    Inputs that all members share are not copied. Shared tensors stay unstacked, those of the module itself. Stacked
    ones are kept until other members are asked for.
    """
    own, device = tensors(twin), place(twin)
    # One name for each tensor: the module hands a tensor given by one of its tied names to the others.
    names = {id(own[name]): name for name in reversed(list(ensemble.families))}.values()
    varying = {n: f for n in names if not isinstance(f := ensemble.families[n], Shared)}
    ensemble.write(ensemble.members[0], own)
    held: dict[tuple[int, ...], dict[str, Tensor]] = {}

    def run(members: Sequence[int], each: Sequence[Any], output: Callable[[Any], Tensor]) -> Tensor:
        if tuple(members) not in held:
            held.clear()  # first, so that two blocks are never held at once
            made = {n: block(f, members, device=device, dtype=own[n].dtype) for n, f in varying.items()}
            held[tuple(members)] = made
        stacked = held[tuple(members)]
        same = all(x is each[0] for x in each)
        if same and not stacked:
            result = output(call(twin, each[0]))
            return result.expand(len(members), *result.shape)

        def one(params: dict[str, Tensor], x: Any) -> Tensor:
            return output(call(lambda *a, **k: functional_call(twin, params, a, k), x))

        axes = (dict.fromkeys(stacked, 0), None if same else 0)
        return vmap(one, in_dims=axes)(stacked, each[0] if same else _stack(each))

    return run


def _stack(each: Sequence[Any]) -> Any:
    head = each[0]
    if isinstance(head, Tensor):
        return torch.stack(list(each))
    if isinstance(head, dict):
        return {key: _stack([x[key] for x in each]) for key in head}
    if isinstance(head, tuple | list):
        return tuple(_stack([x[i] for x in each]) for i in range(len(head)))
    return head
