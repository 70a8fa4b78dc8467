"""Coefficients of the members, fitted by gradient: one for each member and group of tensors.

    theta_j = sum_k c_gk theta_kj                    for the tensors j of group g
    dL / dc_gk = sum_{j in g} <dL / dtheta_j, theta_kj>

With a base, all theta_k are task vectors and theta_j starts from the base. So whoever can say the loss of one model and
its gradient can fit the coefficients of any number of members; what `shares` does to free numbers says which method it
is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.core.params import Params
from pluria.core.reduce import weighted_sum
from pluria.merge.leafwise import leafwise
from pluria.merge.rule import Rule

Objective = Callable[[Params], tuple[float, Params]]
"""A model's params to its loss and the gradient for each tensor; tensors left out have none."""

Grouping = Callable[[str], Hashable]
"""A tensor's name to its group: `lambda name: 0` for the whole model, None for each tensor its own."""

Shares = Callable[[Tensor, int], Tensor]
"""(free numbers, number of the step) -> coefficients `[G, K]`, differentiable."""

Optimiser = Callable[[list[Tensor]], torch.optim.Optimizer]


def fit_coordinates(
    ensemble: Ensemble,
    objective: Objective,
    start: Tensor,
    shares: Shares,
    *,
    groups: Grouping | None = None,
    base: Params | None = None,
    steps: int = 100,
    optimiser: Optimiser | None = None,
    penalty: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """The free numbers after `steps` of descent from `start`, float64; by Adam with rate .05, or another optimiser.

    penalty   added to the loss: of the free numbers, one number with a gradient

    Raises ValueError where the loss is not finite, and for coefficients of another shape than `[groups, members]`.
    """
    raw = start.detach().to(torch.float64).clone().requires_grad_()
    stepper = (optimiser or adam())([raw])
    index = grouped(ensemble, groups)
    for step in range(steps):
        coordinates = shares(raw, step)
        value, gradient = objective(combined(ensemble, coordinates.detach(), groups=groups, base=base))
        if not math.isfinite(value):
            raise ValueError(f"the loss is {value} at step {step}; give a smaller rate, or leave out wild members")
        # Its gradient for the free numbers is that of the loss, by the chain rule.
        linearised = (coordinates * _slopes(ensemble, gradient, index, coordinates.shape, base)).sum()
        stepper.zero_grad()
        torch.autograd.backward(linearised if penalty is None else linearised + penalty(raw))
        stepper.step()
    return raw.detach()


def combined(
    ensemble: Ensemble, coordinates: Tensor, *, groups: Grouping | None = None, base: Params | None = None
) -> dict[str, Tensor]:
    """The model with coefficients `[G, K]`, of any sign and sum; groups are numbered in the order of the tensors."""
    index = grouped(ensemble, groups)
    if coordinates.shape != (count := max(index.values()) + 1, len(ensemble)):
        raise ValueError(f"coefficients are [{count}, {len(ensemble)}] for these groups; got {list(coordinates.shape)}")

    def rule(name: str) -> Rule:
        own = coordinates[index[name]]
        if base is None:
            return Rule(lambda piece, _: weighted_sum(piece.values, own), between=bool((own >= 0).all()))
        return Rule(lambda piece, _: piece.origin + weighted_sum(piece.deltas, own), needs_base=True, between=False)

    return leafwise(ensemble, rule, base=base)


def grouped(ensemble: Ensemble, groups: Grouping | None) -> dict[str, int]:
    """The number of each floating tensor's group."""
    numbers: dict[Hashable, int] = {}
    names = [name for name, family in ensemble.families.items() if family.dtype.is_floating_point]
    return {name: numbers.setdefault(groups(name) if groups else name, len(numbers)) for name in names}


def adam(rate: float = 0.05) -> Optimiser:
    """Adam with this rate."""
    return lambda tensors: torch.optim.Adam(tensors, lr=rate)


def _slopes(
    ensemble: Ensemble, gradient: Params, index: Mapping[str, int], shape: torch.Size, base: Params | None
) -> Tensor:
    """dL / dc, float64 `[G, K]`."""
    found = torch.zeros(shape, dtype=torch.float64)
    for name in _once(ensemble):
        if name not in gradient or name not in index:
            continue
        family, slope = ensemble.families[name], gradient[name].detach().to(torch.float64).cpu()
        value = torch.empty(family.shape, dtype=torch.float64)
        for position, member in enumerate(ensemble.members):
            family.write(member, value)
            own = value if base is None else value - base[name]
            found[index[name], position] += (slope * own).sum()
    return found


def _once(ensemble: Ensemble) -> Iterator[str]:
    """The first name of every tensor: the gradient of a tied one is asked for once."""
    seen: set[int] = set()
    for name, family in ensemble.families.items():
        if id(family) not in seen:
            seen.add(id(family))
            yield name
