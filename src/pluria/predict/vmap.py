"""Members side by side: `torch.func.vmap` over their stacked tensors, for small models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from pluria.core.ensemble import Ensemble
from pluria.core.family import Shared, block
from pluria.predict.batches import call, place


def side_by_side(twin: nn.Module, ensemble: Ensemble) -> Callable[[Sequence[int], Sequence[Any], Any], Tensor]:
    """A function (members, the inputs of each, output) -> outputs `[k, n, ...]` that runs them in one call.

    Inputs that all members share are not copied. Shared tensors stay unstacked.
    """
    varying = {name: f for name, f in ensemble.families.items() if not isinstance(f, Shared)}
    fixed = {name: value for name, value in twin.state_dict(keep_vars=True).items() if name not in varying}
    device = place(twin)
    kinds = {name: value.dtype for name, value in twin.state_dict(keep_vars=True).items()}
    ensemble.write(ensemble.members[0], twin.state_dict(keep_vars=True))

    def run(members: Sequence[int], each: Sequence[Any], output: Callable[[Any], Tensor]) -> Tensor:
        stacked = {n: block(f, members, device=device, dtype=kinds[n]) for n, f in varying.items()}
        same = all(x is each[0] for x in each)

        def one(own: dict[str, Tensor], x: Any) -> Tensor:
            return output(call(lambda *a, **k: functional_call(twin, {**fixed, **own}, a, k), x))

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
