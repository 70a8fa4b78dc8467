"""TIES: task vectors are trimmed, a sign is elected at each place, and those that have it are averaged.

    trim     the k = density n largest |tau_k| of each member stay, exactly k; of equal ones the first come first
    elect    s = sign of the sum of the votes
    merge    merged = theta_0 + scale mean of the tau_k that have the sign s

    form        trimmed over      votes                  where votes are zero             mean
    "paper"     the whole model   w_k tau_k              the sign of most other places    by weight
    "mergekit"  each tensor       w_k tau_k              plus                             by weight
    "peft"      each tensor       tau_k                  plus                             by count
    "sd-mecha"  each tensor       sign tau_k             plus                             by weight

Published defaults are a density of .2 in the paper, 1 in mergekit. Equal magnitudes are common in 16 bits: tools that
keep all above a threshold keep more than the density says. The paper has no weights: in "paper" they are an extension,
in which a member of twice the weight counts as two, in votes and in means. Source: Yadav et al., "TIES-Merging:
resolving interference when merging models", NeurIPS 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from pluria.merge.magnitude import Largest, largest
from pluria.merge.rule import Pass, Piece, Rule
from pluria.merge.signs import ballot, elected, majority, moved
from pluria.numbers.members import Bounds, Differences

Spec = Literal["paper", "mergekit", "peft", "sd-mecha"]
SPECS = ("paper", "mergekit", "peft", "sd-mecha")


Density = float | Sequence[float]
"""One number for all members, or one for each."""


class Trim(NamedTuple):
    """Which elements stay, None for all, and the sign where votes are zero."""

    kept: Largest | None
    tie: float = 1.0


def ties(*, density: Density = 0.2, spec: Spec = "paper", scale: float = 1.0, divided: bool = True) -> Rule:
    """The rule of TIES; it needs a base.

    density   the share of each task vector that stays, in (0, 1], for all members or for each; of every tensor at least
              one element
    scale     what the merged task vector is multiplied with
    divided   whether those that have the sign are averaged; else they are summed, each times its weight

    >>> from pluria.core.ensemble import stack
    >>> from pluria.merge.leafwise import leafwise
    >>> two = stack([{"w": torch.tensor([3.0, -1.0, 0.1])}, {"w": torch.tensor([1.0, 2.0, 0.1])}])
    >>> leafwise(two, ties(density=0.67), base={"w": torch.zeros(3)})
    {'w': tensor([2., 2., 0.])}
    """
    kept, members = densities(density)
    if spec not in SPECS:
        raise ValueError(f"spec is one of {', '.join(map(repr, SPECS))}; got {spec!r}")
    whole = spec == "paper"
    passes = largest(lambda piece: piece.ranked, partial(kept_of, kept)) if float(kept.min()) < 1 else ()
    elections = (Pass(partial(_signs, spec), _majority),) if whole else ()

    def combine(piece: Piece, found: Any) -> Tensor:
        trim, by_count = found if whole else Trim(found), spec == "peft"
        if piece.apart is not None and divided and spec != "sd-mecha":
            bounds, voices = _bounds(piece, piece.apart, trim.kept), _voices(spec, piece)
            return moved(piece.apart, bounds, piece.weights, voices, tie=trim.tie, by_count=by_count, scale=scale)
        deltas = _trimmed(piece, trim.kept)
        votes = _votes(spec, piece, deltas)
        merged = elected(deltas, piece.weights, votes, tie=trim.tie, by_count=by_count, divided=divided)
        return merged.mul_(scale).add_(piece.origin)

    return Rule(
        combine,
        (*passes, *elections),
        needs_base=True,
        members=members,
        scope="model" if whole else "tensor",
        between=False,
    )


def check_density(density: float) -> None:
    """Raise ValueError for a density that keeps nothing, or more than there is."""
    if not 0 < density <= 1:
        raise ValueError(f"density lies in (0, 1]; got {density}")


def densities(density: Density) -> tuple[Tensor, int | None]:
    """Densities float64, `[1]` for one number and `[K]` for one each, and how many members they are for, None: any."""
    each = [density] if isinstance(density, int | float) else list(density)
    for one in each:
        check_density(one)
    if not each:
        raise ValueError("density is one number, or one for each member; got none")
    return torch.tensor(each, dtype=torch.float64), None if isinstance(density, int | float) else len(each)


def kept_of(density: float | Tensor, count: int) -> Tensor:
    """How many of `count` elements stay, int64 `[1, 1]`, or `[1, K]` for as many densities: at least one."""
    # A tenth of ten is one element, whatever binary fractions say.
    held = torch.as_tensor(density, dtype=torch.float64).reshape(1, -1)
    return (held * count + 1e-9).to(torch.int64).clamp(min=1)


def _trimmed(piece: Piece, kept: Largest | None) -> Tensor:
    deltas = piece.deltas
    return deltas if kept is None else kept.trimmed(piece, deltas)


def _bounds(piece: Piece, apart: Differences, kept: Largest | None) -> Bounds:
    """What stays of a piece; all of it without a selection."""
    none = torch.zeros(len(apart), dtype=torch.int64)
    return (none, none, none) if kept is None else kept.bounds(piece, apart)


def _voices(spec: Spec, piece: Piece) -> Tensor:
    return piece.weights if spec in ("paper", "mergekit") else (piece.weights > 0).double()


def _votes(spec: Spec, piece: Piece, deltas: Tensor) -> Tensor:
    return ballot(deltas.sign() if spec == "sd-mecha" else deltas, _voices(spec, piece))


def _signs(spec: Spec, piece: Piece, kept: Largest | None) -> Tensor:
    if piece.apart is not None:
        return torch.tensor(majority(piece.apart, _bounds(piece, piece.apart, kept), _voices(spec, piece)))
    return _votes(spec, piece, _trimmed(piece, kept)).sign().sum(dtype=torch.float64).to(torch.int64)


def _majority(total: Tensor, kept: Largest | None) -> Trim:
    return Trim(kept, -1.0 if total < 0 else 1.0)
