"""REPAIR: layers of a merged network whose outputs vary too little are scaled to vary as its members' do.

    ratio of a layer   = median over channels of  std(merged) / sum_k w_k std(member k)
    repaired channel   = (z - mean(merged)) * target std / std(merged) + target mean        folded into weight and bias

Means of networks that do not fit lose variance layer by layer. A layer is touched only where its ratio says so: on
networks that fit, repairing was seen to do harm. With batch norm the remedy is `refresh`. Layers are repaired in the
order in which they run, each measured behind those already repaired.
Source: Jordan, Sedghi, Saukh, Entezari and Neyshabur, "REPAIR", ICLR 2023.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pluria.align.follow import tensors_of
from pluria.align.refresh import has_batch_norm
from pluria.core.calling import Forward, call, check_batches, check_seen, moved, place
from pluria.core.ensemble import Ensemble
from pluria.core.model import tensors, working_copy
from pluria.core.params import Params, check_fit

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass
class _Spread:
    """Sums over places of a layer's outputs, for each channel `[C]`."""

    count: int
    total: Tensor
    square: Tensor

    @property
    def mean(self) -> Tensor:
        return self.total / self.count

    @property
    def std(self) -> Tensor:
        return (self.square / self.count - self.mean.square()).clamp(min=0).sqrt()


Spreads = dict[str, _Spread]


def variance_ratios(
    model: nn.Module, params: Params, ensemble: Ensemble, inputs: Iterable[Any], *, forward: Forward = call
) -> dict[str, float]:
    """For each hidden linear layer and convolution, in the order they run, how much of its spread a merge has left.

    1 where the merged network varies as its members do, less where variance has collapsed. `inputs` are unlabelled
    batches.
    """
    twin, batches = _ready(model, params, ensemble, inputs)
    targets = _targets(twin, ensemble, batches, forward)
    _write(twin, params)
    found = _measure(twin, batches, forward)
    return {name: _ratio(found[name], target) for name, target in targets.items()}


def repair(
    model: nn.Module,
    params: Params,
    ensemble: Ensemble,
    inputs: Iterable[Any],
    *,
    tolerance: float = 0.05,
    forward: Forward = call,
) -> dict[str, Tensor]:
    """The merged network `params` with its layers repaired where their ratio is further than `tolerance` from one.

    ensemble   the members that were merged, with their weights
    inputs     unlabelled batches, run once on each member and once for each repaired layer

    The last layer is left alone, and a layer without a bias keeps its mean. Raises ValueError for a model with batch
    norm, and for NaN or Inf in a layer.
    """
    if has_batch_norm(model):
        raise ValueError("this model has batch norm: refresh the statistics of the merged network with `refresh`")
    twin, batches = _ready(model, params, ensemble, inputs)
    targets = _targets(twin, ensemble, batches, forward)
    _write(twin, params)
    for name, target in targets.items():
        found = _measure(twin, batches, forward)[name]
        if abs(_ratio(found, target) - 1) > tolerance:
            _fold(twin.get_submodule(name), found, target)
    own = tensors(twin)
    return {name: own[name].detach().clone() for name in params}


def _ready(model: nn.Module, params: Params, ensemble: Ensemble, inputs: Iterable[Any]) -> tuple[nn.Module, list[Any]]:
    check_batches(inputs)
    batches = [moved(batch, place(model), None) for batch in inputs]
    if not batches:
        raise ValueError("no inputs to measure the layers on")
    check_fit(params, tensors(model), what="the merged network")
    check_fit(ensemble.outline(), tensors(model), what="the ensemble")
    return working_copy(model), batches


def _targets(twin: nn.Module, ensemble: Ensemble, batches: Sequence[Any], forward: Forward) -> Spreads:
    """Weighted means of the members' means and standard deviations."""
    found: Spreads = {}
    for member, weight in zip(ensemble.members, ensemble.weights, strict=True):
        ensemble.write(member, tensors(twin))
        for name, spread in _measure(twin, batches, forward).items():
            sums = found.setdefault(name, _Spread(1, torch.zeros_like(spread.mean), torch.zeros_like(spread.mean)))
            sums.total += weight * spread.mean
            sums.square += weight * spread.std
    # What is kept is a mean and a std: back to the sums of one place that have them.
    return {name: _Spread(1, s.total, s.square.square() + s.total.square()) for name, s in found.items()}


def _measure(twin: nn.Module, batches: Sequence[Any], forward: Forward) -> Spreads:
    """Spreads of the outputs of all layers but the last, in the order in which they run."""
    found: Spreads = {}
    seen: dict[int, str] = {}
    names = {name: module for name, module in twin.named_modules() if isinstance(module, LAYERS)}
    hooks = [module.register_forward_hook(_record(name, found, seen)) for name, module in names.items()]
    try:
        with torch.no_grad():
            for batch in batches:
                seen.clear()
                answers = {id(tensor) for tensor in tensors_of(forward(twin, batch))}
    finally:
        for hook in hooks:
            hook.remove()
    last = {name for identity, name in seen.items() if identity in answers}
    return {name: spread for name, spread in found.items() if name not in last}


def _record(name: str, found: Spreads, seen: dict[int, str]) -> Callable[[nn.Module, Any, Tensor], None]:
    def hook(module: nn.Module, args: Any, out: Tensor) -> None:
        check_seen(out, name, wanted="mean and variance")
        seen[id(out)] = name
        rows = (out if isinstance(module, nn.Linear) else out.movedim(1, -1)).flatten(0, -2).double()
        sums = found.setdefault(name, _Spread(0, torch.zeros_like(rows[0]), torch.zeros_like(rows[0])))
        sums.count += len(rows)
        sums.total += rows.sum(0)
        sums.square += rows.square().sum(0)

    return hook


def _ratio(found: _Spread, target: _Spread) -> float:
    moving = target.std > 0
    return float((found.std[moving] / target.std[moving]).median()) if bool(moving.any()) else 1.0


def _fold(layer: nn.Module, found: _Spread, target: _Spread) -> None:
    scale = torch.where(found.std > 0, target.std / found.std.clamp(min=1e-30), 1.0)
    own = tensors(layer)
    with torch.no_grad():
        own["weight"].copy_((own["weight"].double().flatten(1) * scale[:, None]).view_as(own["weight"]))
        if "bias" in own:
            own["bias"].copy_((own["bias"].double() - found.mean) * scale + target.mean)


def _write(twin: nn.Module, params: Params) -> None:
    with torch.no_grad():
        for name, value in tensors(twin).items():
            if name in params:
                value.copy_(params[name])
