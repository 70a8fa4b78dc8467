"""Members as ordinary checkpoints that plain torch loads, and rounded members as packed codes.

export_member   one state dict, every tensor bit for bit      packed   b bits per weight and member, or b + K planes
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch

from pluria.core.coded import Coded, pack_members, pack_planes
from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, Joined, Shared, Stacked
from pluria.core.rounded import Rounded
from pluria.store.atomic import replacing
from pluria.store.tensors import write_tensors

Form = Literal["members", "planes"]
TORCH = (".pt", ".pth")
SUFFIXES = (".safetensors", *TORCH)


def export_member(ensemble: Ensemble, member: int, path: str | os.PathLike[str]) -> None:
    """Write member number `member` as a state dict: `.safetensors`, or `.pt` and `.pth` where tied names share memory.

    A `.safetensors` file keeps a copy for every name, tied or not. Raises ValueError for a member that the ensemble
    does not have or another suffix, and OSError with the old file untouched.
    """
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: a state dict is written to one of {', '.join(SUFFIXES)}; got {suffix!r}")
    if member not in ensemble.members:
        raise ValueError(f"the ensemble has no member {member}; its members are {list(ensemble.members)}")
    params = ensemble.params(member)
    if suffix in TORCH:
        with replacing(path) as file:
            torch.save(params, file)
    else:
        write_tensors(path, params, {"format": "pt"})


def export_members(ensemble: Ensemble, folder: str | os.PathLike[str], *, suffix: str = ".safetensors") -> list[Path]:
    """Write every member to `folder` (made if need be) as member-0000 and so on, by number.

    `members.json` beside them gives each file's mixing weight. Returns the paths in the order of the members.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    weights: dict[str, float] = {}
    for member, weight in zip(ensemble.members, ensemble.weights.tolist(), strict=True):
        name = f"member-{member:04d}{suffix}"
        if name not in weights:
            export_member(ensemble, member, place / name)
        weights[name] = weights.get(name, 0.0) + weight
    with replacing(place / "members.json") as file:
        file.write(json.dumps(weights, indent=1).encode() + b"\n")
    return [place / name for name in weights]


def packed(ensemble: Ensemble, *, form: Form = "members") -> Ensemble:
    """The same members, numbered anew from zero, with rounded families as packed codes that need no base.

    form   "members": each with its own codes, K b bits per weight; "planes": shared floor codes and a bit for each
           member, b + K bits per weight, for stochastic rounding of one base

    Members are equal bit for bit; `ensemble.bits().file` says what they take. Raises ValueError where nothing is
    rounded, and where bit planes do not serve.
    """
    if form not in ("members", "planes"):
        raise ValueError(f"a form is 'members' or 'planes'; got {form!r}")
    made: dict[int, Family] = {}
    for name, family in ensemble.families.items():
        if id(family) not in made:
            try:
                made[id(family)] = _packed(family, ensemble.members, form)
            except ValueError as error:
                raise ValueError(f"tensor {name!r}: {error}") from None
    if not any(map(_rounded, ensemble.families.values())):
        coded = any(isinstance(family, Coded) for family in ensemble.families.values())
        why = "what is rounded is kept as codes already" if coded else "no tensor of the ensemble is rounded"
        raise ValueError(f"{why}, so there are no codes to pack")
    families = {name: made[id(family)] for name, family in ensemble.families.items()}
    return Ensemble(families, tuple(range(len(ensemble))), ensemble.weights)


def _packed(family: Family, members: Sequence[int], form: Form) -> Family:
    """A family whose members 0, 1, ... are `members` of `family`."""
    if isinstance(family, Shared):
        return family
    if isinstance(family, Rounded):
        return pack_members(family, members) if form == "members" else pack_planes(family, members)
    if isinstance(family, Stacked):
        rows = [member if family.index is None else family.index.index(member) for member in members]
        return Stacked(family.values[rows])
    if isinstance(family, Joined) and _rounded(family):
        return _packed_parts(family, members, form)
    return Joined((family,), (tuple(members),))


def _packed_parts(family: Joined, members: Sequence[int], form: Form) -> Family:
    """Each part with those of its members that are used, end to end, and then in the order that is wanted."""
    places = [family.place(member) for member in members]
    used = sorted({part for part, _ in places})
    own = {part: [member for where, member in places if where == part] for part in used}
    parts = tuple(_packed(family.parts[part], own[part], form) for part in used)
    joined = Joined(parts, tuple(tuple(range(len(own[part]))) for part in used))
    order = sorted(range(len(places)), key=lambda position: places[position][0])
    if order == sorted(order):
        return joined
    place_of = {position: place for place, position in enumerate(order)}
    return Joined((joined,), (tuple(place_of[position] for position in range(len(order))),))


def _rounded(family: Family) -> bool:
    return isinstance(family, Rounded) or (isinstance(family, Joined) and any(map(_rounded, family.parts)))
