"""SCE: select where the task vectors differ most, count each by its energy there, erase the minority's signs.

    select      the places of the largest variance over members, a share `select` of each tensor
                "paper"     of all its elements, at least one
                "mergekit"  of those whose variance is not zero, cut to a whole number that may be zero
    calculate   c_k = w_k sum tau_k^2 over these places
    erase       s = sign of sum_k w_k tau_k        A = {k: tau_k has the sign s}
    merged      theta_0 + scale sum_{k in A} c_k tau_k / sum_{k in A} c_k

Source: Wan et al., "FuseChat: knowledge fusion of chat models", 2024.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from pluria.merge.magnitude import Largest, largest
from pluria.merge.rule import Pass, Piece, Rule
from pluria.merge.signs import ballot, elected
from pluria.merge.ties import kept_of

Spec = Literal["paper", "mergekit"]
SPECS = ("paper", "mergekit")


class Found(NamedTuple):
    """The places that are selected, None for all, and each member's share `[K]`."""

    places: Largest | None
    shares: Tensor


def sce(*, select: float = 1.0, scale: float = 1.0, spec: Spec = "paper") -> Rule:
    """The rule of SCE; it needs a base. `select` is the share of the places that change, in (0, 1]; 1 is all of them.

    spec   what it is a share of: "paper", all elements of a tensor; "mergekit", those in which members differ

    >>> from pluria.core.ensemble import stack
    >>> from pluria.merge.leafwise import leafwise
    >>> two = stack([{"w": torch.tensor([1.0, 1.0])}, {"w": torch.tensor([2.0, 1.0])}])  # energies 1 and 4
    >>> leafwise(two, sce(select=0.5), base={"w": torch.zeros(2)})
    {'w': tensor([1.8000, 0.0000])}
    """
    if not 0 < select <= 1:
        raise ValueError(f"select lies in (0, 1]; got {select}")
    if spec not in SPECS:
        raise ValueError(f"spec is one of {', '.join(map(repr, SPECS))}; got {spec!r}")
    differing = spec == "mergekit"
    counts = partial(_share if differing else kept_of, select)
    selection = largest(_variance, counts, nonzero=differing) if select < 1 else ()

    def combine(piece: Piece, found: Found) -> Tensor:
        deltas = _selected(piece, found.places)
        merged = elected(deltas, found.shares, ballot(deltas, piece.weights))
        return merged.mul_(scale).add_(piece.origin)

    return Rule(combine, (*selection, Pass(_energies, _shares)), needs_base=True, between=False)


def _share(select: float, count: int) -> Tensor:
    return torch.tensor([[int(select * count)]])


def _variance(piece: Piece) -> Tensor:
    """sum_k w_k (tau_k - mean)^2, `[1, n]`; a normal number unless it is zero."""
    shares = piece.weights.to(piece.values.dtype)[:, None]
    deltas = piece.deltas
    spread = ((deltas - (deltas * shares).sum(0)).square() * shares).sum(0, keepdim=True)
    # Rounding of the mean gives equal members a variance, and squares of small differences lose theirs.
    heard = deltas[piece.weights > 0]
    return spread.clamp_(min=torch.finfo(spread.dtype).tiny).masked_fill_((heard == heard[0]).all(0), 0.0)


def _selected(piece: Piece, places: Largest | None) -> Tensor:
    deltas = piece.deltas
    return deltas if places is None else deltas.mul_(places.mask(piece, _variance(piece))[0])


def _energies(piece: Piece, places: Largest | None) -> Tensor:
    return piece.weights * _selected(piece, places).square().sum(1, dtype=torch.float64)


def _shares(energies: Tensor, places: Any) -> Found:
    total = energies.sum()
    return Found(places, energies / total if total > 0 else torch.full_like(energies, 1 / len(energies)))
