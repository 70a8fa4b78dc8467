"""Late-phase weights: in the last part of a run a few tensors are replicated, and averaged again at its end.

    loss = sum_k L_k(theta, phi_k), each on a minibatch of its own      phi_k <- by its own gradient
    theta <- by gamma sum_k dL_k / dtheta                                phi = mean_k phi_k at the end

gamma is 1 in the paper's CIFAR runs and 1 / K in its fine-tuning. phi is small: the affine numbers of norm layers (with
the last layer, by default), rank-1 factors, the last layer, or the embeddings of a linear hypernetwork.

Source: von Oswald et al., "Neural Networks with Late-Phase Weights", ICLR 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from pluria.core.family import Affine, Family
from pluria.core.model import roles
from pluria.numbers.key import Key
from pluria.train.factors import FactoredPart, last_weight, weights_of
from pluria.train.fresh import fresh_normals
from pluria.train.population import OwnPart, Part, Population

Kind = Literal["norm", "last", "rank1", "hyper"]


class HyperPart(Part):
    """A tensor as a linear map of the member's embedding: origin + sum_d embedding[m, d] directions[d]."""

    def __init__(self, origin: nn.Parameter, directions: Tensor, members: int) -> None:
        super().__init__()
        self.origin = nn.Parameter(origin.detach().clone(), requires_grad=origin.requires_grad)
        self.directions = nn.Parameter(directions)
        self.embedding = nn.Parameter(origin.new_zeros(members, len(directions)))

    def forward(self, member: int) -> Tensor:
        """The member's tensor."""
        return self._at(self.embedding[member])

    def _at(self, embedding: Tensor) -> Tensor:
        return torch.add(self.origin, torch.tensordot(embedding, self.directions, dims=1))

    def family(self) -> Family:
        """Affine."""
        return Affine(
            self.origin.detach().clone(), self.directions.detach().clone(), self.embedding.detach().to(torch.float64)
        )

    def common(self) -> list[nn.Parameter]:
        """The map."""
        return [self.origin, self.directions]

    def mean(self) -> Tensor:
        """At the mean embedding."""
        return self._at(self.embedding.mean(0)).detach()


def late_phase(
    model: nn.Module,
    *,
    members: int = 10,
    kind: Kind = "norm",
    sigma: float = 0.0,
    size: int = 8,
    key: Key | int = 0,
) -> Population:
    """The population to go on with, from the network as it is after the first part of the run.

    kind    "norm" (affine numbers of norm layers, and the last layer), "last", "rank1", "hyper"
    sigma   each member's replicas begin at phi + sigma rms(phi) noise; at 0 members are the network itself
    size    of an embedding

    What is frozen is not replicated. The last layer is a language model's output layer, unless that is tied to the
    embedding. Raises ValueError where the network lacks the layers, naming what was looked for.
    """
    if kind not in ("norm", "last", "rank1", "hyper"):
        raise ValueError(f"late-phase weights are of the kinds norm, last, rank1 and hyper; got {kind!r}")
    if not (0 <= sigma < math.inf and size >= 1):
        raise ValueError(f"sigma is 0 or more and size 1 or more; got {sigma} and {size}")
    key = key if isinstance(key, Key) else Key(key)
    if kind in ("norm", "last"):
        own = dict(model.named_parameters())
        names = _replicated(model, own, norms=kind == "norm")
        parts: dict[str, Part] = {name: _noisy(name, own[name], members, sigma, key) for name in names}
        return Population(model, members=members, parts=parts)
    weights = weights_of(model, "a late phase", learned=True)
    if kind == "rank1":
        parts = {name: _ones(name, value, members, sigma, key) for name, value in weights.items()}
    else:
        parts = {name: _hyper(name, value, members, sigma, size, key) for name, value in weights.items()}
    return Population(model, members=members, parts=parts)


def scale_common(population: Population, gamma: float) -> None:
    """Multiply the gradients of what is shared by gamma, between `backward` and the optimiser's step."""
    for value in population.common():
        if value.grad is not None:
            value.grad.mul_(gamma)


def _replicated(model: nn.Module, own: Mapping[str, nn.Parameter], *, norms: bool) -> list[str]:
    found, head = roles(model), last_weight(model, "a late phase")
    last = [name for name in own if name in (head, head.removesuffix("weight") + "bias")]
    affine = [name for name in own if found[name].kind == "norm"]
    if norms and not affine:
        raise ValueError("late-phase norms need norm layers with affine numbers; no layer has 'norm' in its kind")
    names = [*affine, *last] if norms else last
    if not (learned := [name for name in names if own[name].requires_grad]):
        raise ValueError(f"nothing to replicate learns; these are frozen: {', '.join(names)}")
    return learned


def _noisy(name: str, value: nn.Parameter, members: int, sigma: float, key: Key) -> OwnPart:
    size = sigma * value.detach().square().mean().sqrt()
    noise = fresh_normals(name, (members, *value.shape), key).to(value)
    return OwnPart(value, members, value.detach() + size * noise)


def _ones(name: str, value: nn.Parameter, members: int, sigma: float, key: Key) -> FactoredPart:
    left, right = (
        (1 + sigma * fresh_normals(f"{name}\0{axis}", (members, size), key)).to(value)
        for axis, size in enumerate(value.shape[:2])
    )
    return FactoredPart(value, left.unsqueeze(2), right.unsqueeze(1), "multiply")


def _hyper(name: str, value: nn.Parameter, members: int, sigma: float, size: int, key: Key) -> HyperPart:
    rms = value.detach().square().mean().sqrt()
    part = HyperPart(value, rms * fresh_normals(f"{name}\0map", (size, *value.shape), key).to(value), members)
    with torch.no_grad():
        part.embedding.copy_(sigma * fresh_normals(f"{name}\0embedding", (members, size), key))
    return part
