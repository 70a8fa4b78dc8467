"""Amortised model ensembling (AME): any optimiser, with the way to each member in place of a gradient.

    g = w - theta_i        w <- step(w, g)        for the members i in an order drawn anew in each epoch

Plain descent with the rate w_i / (w_1 + ... + w_i), which is 1/i for equal weights, is the mean of the members.
Adaptive optimisers stay near the pivot they start from, and part of what they gain is the pivot's: report it beside
them. Their rate needs held-out rows. Source: "On defining neural averaging", arXiv 2508.14832.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.core.family import Family
from pluria.core.params import Params
from pluria.merge.coordinates import Optimiser
from pluria.merge.leafwise import leafwise
from pluria.merge.linear import linear
from pluria.numbers.key import MERGING, Key, tensor_id
from pluria.numbers.narrow import narrowed
from pluria.numbers.philox import words

ORDER = "\0order"
"""Reserved name of the random addresses, so that no tensor shares them."""


def amortised(
    ensemble: Ensemble,
    optimiser: Optimiser | None = None,
    *,
    pivot: Params | None = None,
    epochs: int = 1,
    key: Key | int = 0,
) -> dict[str, Tensor]:
    """The members averaged by an optimiser, such as `lambda tensors: torch.optim.AdamW(tensors, lr=1e-3)`.

    optimiser   None: descent whose rate makes it the mean
    pivot       where it starts; by default the mean of the members

    Tensors are optimised one after the other in float64, so memory is one tensor and the optimiser's state of it. A
    given optimiser takes every member alike, whatever the weights.
    """
    key = key if isinstance(key, Key) else Key(key)
    made = leafwise(ensemble, linear(), base=None)
    start = made if pivot is None else pivot
    done: dict[int, Tensor] = {}
    for name, family in ensemble.families.items():
        if family.dtype.is_floating_point and id(family) not in done:
            descent = _descended(ensemble, family, start[name], optimiser, epochs, key)
            done[id(family)] = narrowed(descent, family.dtype)
    return {name: done.get(id(family), made[name]) for name, family in ensemble.families.items()}


def _descended(
    ensemble: Ensemble, family: Family, start: Tensor, optimiser: Optimiser | None, epochs: int, key: Key
) -> Tensor:
    point, member = start.detach().to(torch.float64).clone().requires_grad_(), torch.empty(family.shape).double()
    stepper = optimiser([point]) if optimiser else torch.optim.SGD([point], lr=1.0)
    seen = 0.0
    for epoch in range(epochs):
        for position in _order(len(ensemble), epoch, key):
            weight = float(ensemble.weights[position])
            if weight == 0:
                continue
            family.write(ensemble.members[position], member)
            seen += weight
            if optimiser is None:
                stepper.param_groups[0]["lr"] = weight / seen
            point.grad = point.detach() - member
            stepper.step()
    return point.detach()


def _order(members: int, epoch: int, key: Key) -> list[int]:
    drawn = words(key, tensor=tensor_id(ORDER), group=epoch, stream=MERGING, start=0, stop=members)
    return [int(position) for position in drawn.argsort(stable=True)]
