"""Partial ZipIt: a trunk that all members share, zipped, under layers that stay each member's own.

    trunk   W = sum_k M_k W_k U_k        own   W_k U_k        U_k copies the trunk's merged places back for member k

So networks of different tasks share what they have in common and keep their heads. Source: Stoica et al., "ZipIt!",
ICLR 2024, which stops at a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

from pluria.align.zipit import Zipping, prepared
from pluria.core.calling import Forward, call
from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, Shared, Stacked
from pluria.numbers.narrow import narrowed


def zip_trunk(
    model: nn.Module,
    ensemble: Ensemble,
    inputs: Iterable[Any],
    *,
    own: Sequence[str],
    alpha: float = 0.3,
    beta: float = 0.125,
    forward: Forward = call,
) -> Ensemble:
    """As many members as before, of which `own` name patterns (`"head.*"`) say what stays theirs; all else is shared.

    inputs, alpha, beta   as in `zipit`

    Members answer each for its own task, or together; a shared tensor is stored once. Raises ValueError where no
    tensor is own, or all are, and where the trunk makes or reads hidden places that the layers above make.
    """
    zipping = prepared(model, ensemble, inputs, alpha=alpha, beta=beta, forward=forward)
    theirs = [name for name in ensemble.families if any(fnmatchcase(name, pattern) for pattern in own)]
    if not 0 < len(theirs) < len(ensemble.families):
        raise ValueError(
            f"own={list(own)} names {len(theirs)} of {len(ensemble.families)} tensors; wanted some, and some that are "
            f"shared. There are {', '.join(list(ensemble.families)[:5])}, ..."
        )
    above = _above(zipping, theirs)
    for name in ensemble.families:
        if name not in theirs and (group := next((g for g in _groups(zipping, name) if g in above), None)):
            raise ValueError(
                f"tensor {name!r} shares the hidden places {group!r} with {above[group]!r}, which stays each member's "
                "own; let both stay, or neither"
            )
    kept = replace(zipping, clusters={g: own for g, own in zipping.clusters.items() if g not in above})
    made: dict[int, Family] = {}
    for name, family in ensemble.families.items():
        if id(family) not in made:
            made[id(family)] = _own(kept, name) if name in theirs else Shared(kept.merged(name))
    families = {name: made[id(family)] for name, family in ensemble.families.items()}
    return Ensemble(families, tuple(range(len(ensemble))), ensemble.weights)


def _above(zipping: Zipping, theirs: Sequence[str]) -> dict[str, str]:
    """Groups that tensors of the members' own make, each with one of these tensors."""
    found: dict[str, str] = {}
    for name in theirs:
        runs = zipping.runs(name)
        for axis in zipping.made(name):
            found |= {factor: name for run in runs[axis] for factor in run if factor in zipping.groups.sizes}
    return found


def _groups(zipping: Zipping, name: str) -> list[str]:
    runs = zipping.runs(name)
    return [factor for own in runs for run in own for factor in run if factor in zipping.groups.sizes]


def _own(zipping: Zipping, name: str) -> Family:
    values = [params[name].detach() for params in zipping.several]
    if not values[0].is_floating_point():
        return Stacked(torch.stack(values))
    return Stacked(torch.stack([narrowed(zipping.part(name, k), value.dtype) for k, value in enumerate(values)]))
