"""Methods as a recipe calls them: (model, members, key, options) -> (the model to run, its ensemble)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from pluria.core.ensemble import Ensemble, single
from pluria.core.family import Family, Joined
from pluria.core.model import roles
from pluria.core.params import params_of
from pluria.numbers.coupling import Coupling
from pluria.numbers.grid import Granularity
from pluria.numbers.key import Key
from pluria.sample import compensated as with_feedback
from pluria.sample import dropout as dropout_members
from pluria.sample import gaussian as matched
from pluria.sample import gptq as closest_with_feedback
from pluria.sample import isotropic as equal_noise
from pluria.sample import low_precision as rounded
from pluria.sample import nearest as closest
from pluria.sample.compensated import Order

Made = tuple[nn.Module, Ensemble]
Of = Literal["network", "collected"]
"""What is drawn around: the network itself, or in turn the members that it brings along."""

Formats = str | Mapping[str, str]
Patterns = list[str] | None


def full_precision(model: nn.Module, *, members: int, key: Key) -> Made:
    """The network itself; several members see several views."""
    return model, Ensemble(single(params_of(model)).families, tuple(range(members)))


def collected(model: nn.Module, *, members: int, key: Key, collected: Ensemble | None) -> Made:
    """The members that the network brings along."""
    found = _brought(collected)
    if members > len(found):
        raise ValueError(f"{members} members are asked for, and the network brings along {len(found)}")
    return model, found.first(members)


def nearest(
    model: nn.Module,
    *,
    members: int,
    key: Key,
    format: Formats = "int5",
    granularity: Granularity = "channel",
    where: Patterns = None,
) -> Made:
    """The one model nearest on the grid."""
    made = closest(model, format=format, granularity=granularity, where=where)
    return model, Ensemble(made.families, tuple(range(members)))


def low_precision(
    model: nn.Module,
    *,
    members: int,
    key: Key,
    format: Formats = "int5",
    coupling: Coupling = "stratified",
    granularity: Granularity = "channel",
    where: Patterns = None,
    of: Of = "network",
    collected: Ensemble | None = None,
) -> Made:
    """Members by stochastic rounding."""
    options = {"format": format, "coupling": coupling, "granularity": granularity, "where": where}
    base = _around(model, of, collected)
    return model, rounded(base, members=members, key=key, roles=roles(model), **options)  # type: ignore[arg-type]


def compensated(
    model: nn.Module,
    *,
    members: int,
    key: Key,
    inputs: list[Any],
    format: Formats = "int4",
    coupling: Coupling = "stratified",
    granularity: Granularity = "channel",
    order: Order = "given",
    damping: float = 0.01,
    where: Patterns = None,
) -> Made:
    """Members by stochastic rounding with error feedback, from unlabelled batches."""
    options = {"format": format, "coupling": coupling, "granularity": granularity, "order": order, "damping": damping}
    return model, with_feedback(model, inputs, members=members, key=key, where=where, **options)  # type: ignore[arg-type]


def gptq(
    model: nn.Module,
    *,
    members: int,
    key: Key,
    inputs: list[Any],
    format: Formats = "int4",
    granularity: Granularity = "channel",
    order: Order = "given",
    damping: float = 0.01,
    where: Patterns = None,
) -> Made:
    """The one model by nearest rounding with error feedback, from unlabelled batches."""
    made = closest_with_feedback(
        model, inputs, format=format, granularity=granularity, order=order, damping=damping, where=where
    )
    # One member under several numbers, for several views.
    return model, made if members == 1 else Ensemble(_repeated(made, members), tuple(range(members)))


def gaussian(
    model: nn.Module,
    *,
    members: int,
    key: Key,
    format: Formats = "int5",
    granularity: Granularity = "channel",
    where: Patterns = None,
    scale: float = 1.0,
) -> Made:
    """Gaussian noise with the variance that rounding to `format` would have."""
    _check_positive("scale", scale)
    like = rounded(model, members=members, format=format, granularity=granularity, where=where, key=key)
    return model, matched(like, scale=scale, key=key)


def isotropic(model: nn.Module, *, members: int, key: Key, std: float, where: Patterns = None) -> Made:
    """The same Gaussian noise on every weight."""
    _check_positive("std", std)
    return model, equal_noise(rounded(model, members=members, where=where, key=key), std=std, key=key)


def dropout(model: nn.Module, *, members: int, key: Key) -> Made:
    """MC dropout."""
    return dropout_members(model, members=members, key=key)


def _around(model: nn.Module, of: Of, collected: Ensemble | None) -> nn.Module | Ensemble:
    return model if of == "network" else _brought(collected)


def _brought(collected: Ensemble | None) -> Ensemble:
    if collected is None:
        raise ValueError("the network brings no members along: give it `members`, a training or a .pluria file")
    return collected


def _repeated(single: Ensemble, members: int) -> dict[str, Family]:
    """Families whose members are all the one of `single`; tied names stay tied."""
    families = {id(family): family for family in single.families.values()}
    made = {own: Joined((family,), ((single.members[0],) * members,)) for own, family in families.items()}
    return {name: made[id(family)] for name, family in single.families.items()}


def _check_positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is a positive number; got {value}")
