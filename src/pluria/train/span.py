"""Networks on the span of a few points: the points that are learned, others that are held, evaluated at mixing shares.

    w(c) = sum_j c_j p_j

A curve holds its ends and learns its bends; a subspace learns all its corners. Statistics of batch norm are no
mixtures: refresh them at every point that is evaluated.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.core.family import Affine, Family, Shared
from pluria.core.model import tensors, ties
from pluria.core.params import Params, check_same
from pluria.train.population import evaluate


class Span(nn.Module):
    """Points of one network, `[P]` of them, as parameters; those whose number is in `held` are not learned, nor are
    parameters that the network holds frozen.

    Buffers are the network's own, one set. Raises ValueError for fewer than two points.
    """

    def __init__(self, model: nn.Module, points: Sequence[Params], *, held: Sequence[int] = ()) -> None:
        super().__init__()
        if len(points) < 2:
            raise ValueError(f"a span needs two points or more; got {len(points)}")
        check_same([tensors(model), *points])
        self.ties, self.count = ties(model), len(points)
        self.points: list[dict[str, nn.Parameter]] = [
            {
                n: nn.Parameter(point[n].detach().clone(), requires_grad=j not in held and own.requires_grad)
                for n, own in model.named_parameters()
            }
            for j, point in enumerate(points)
        ]
        self.learned = nn.ParameterList(value for point in self.points for value in point.values())
        self.network = copy.deepcopy(model).requires_grad_(False)

    def params(self, shares: Tensor) -> dict[str, Tensor]:
        """The parameters at shares `[P]`, with their gradients' paths."""
        return {name: _mixed([point[name] for point in self.points], shares) for name in self.points[0]}

    def forward(self, inputs: Any, *, shares: Tensor) -> Any:
        """The network's output at shares `[P]`."""
        return evaluate(self.network, self.params(shares.to(self.learned[0])), inputs)

    def norm(self, shares: Tensor) -> Tensor:
        """The squared length of the parameters at shares, for weight decay on what is evaluated."""
        return torch.stack([value.square().sum() for value in self.params(shares).values()]).sum()

    def ensemble(self, shares: Tensor) -> Ensemble:
        """Members at shares `[K, P]`, with the network's present buffers."""
        made: dict[str, Family] = {}
        for name, value in tensors(self.network).items():
            if (first := self.ties[name]) not in made:
                held = first in self.points[0]
                made[first] = self._family(first, shares) if held else Shared(value.detach().clone())
        return Ensemble({name: made[first] for name, first in self.ties.items()}, tuple(range(len(shares))))

    def _family(self, name: str, shares: Tensor) -> Affine:
        points = torch.stack([point[name].detach() for point in self.points])
        return Affine(torch.zeros_like(points[0]), points, shares.detach().to(torch.float64).cpu())


def cosine(span: Span, one: int, other: int) -> Tensor:
    """The squared cosine of two points' weights of two axes or more; as a penalty it keeps corners apart."""
    names = [name for name, value in span.points[one].items() if value.ndim > 1]
    left, right = (torch.cat([span.points[j][name].flatten() for name in names]) for j in (one, other))
    return (left @ right).square() / (left.square().sum() * right.square().sum())


def _mixed(values: Sequence[Tensor], shares: Tensor) -> Tensor:
    mixed: Tensor = torch.tensordot(shares, torch.stack(list(values)), dims=1)
    return mixed
