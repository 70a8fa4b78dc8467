"""Ensembles to plain data and back: numbers as JSON, tensors in one table, families in another.

    number, text, None   themselves                           tuple    a list
    tensor               {"tensor": its name in the table}    family   {"family": its place among the families}
    other dataclass      {its kind: {field: value, ...}}, without fields that a class makes itself

A family names earlier places only, so there is no cycle. Tensors that are equal bit for bit are kept once, and so is
a family that is used twice: tied names hold one object again after reading. Only the classes in KINDS are ever built,
from fields that have the types of their hints.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from pluria.core.coded import Coded
from pluria.core.ensemble import Ensemble
from pluria.core.errors import FileFormatError
from pluria.core.factored import Factored
from pluria.core.family import Affine, Family, Joined, Shared, Stacked
from pluria.core.gaussian import Gaussian
from pluria.core.masked import Masked
from pluria.core.rounded import Rounded
from pluria.numbers.format import Format, Integer, Minifloat, NormalFloat
from pluria.numbers.grid import Grid, Layout
from pluria.numbers.key import Key
from pluria.store.check import check_family, check_members, inner
from pluria.store.row import counted, written
from pluria.store.tensors import dtype_name, fingerprint

FAMILIES: dict[str, type] = {
    "shared": Shared,
    "stacked": Stacked,
    "affine": Affine,
    "joined": Joined,
    "rounded": Rounded,
    "coded": Coded,
    "gaussian": Gaussian,
    "masked": Masked,
    "factored": Factored,
}
FORMATS: dict[str, type] = {"integer": Integer, "minifloat": Minifloat, "normalfloat": NormalFloat}
KINDS: dict[str, type] = {**FAMILIES, **FORMATS, "grid": Grid, "layout": Layout, "key": Key}
"""Every class that a file can hold, by its written name."""

NAMES = {made: name for name, made in KINDS.items()}

HINTS = {
    name: {each.name: get_type_hints(made)[each.name] for each in dataclasses.fields(made) if each.init}
    for name, made in KINDS.items()
}
"""Fields that each class takes as arguments, with their types."""

DEPTH = 64
"""Families nested deeper than this are refused: reading a member follows every level."""

SLACK = 1e-9
"""How far from one the sum of the weights in a file may be."""


def encode(ensembles: Mapping[str, Ensemble]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Plain data, and the table of tensors, of some named ensembles.

    Raises TypeError for a class that files do not hold, ValueError for a family that could not be read again.
    """
    tables = _Written()
    try:
        named = {name: _ensemble_data(ensemble, name, tables) for name, ensemble in ensembles.items()}
    except RecursionError:
        _refuse_deep()
    return {"ensembles": named, "families": tables.families}, tables.tensors


def decode(data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Ensemble]:
    """The inverse of `encode`. Raises FileFormatError that names the place where the data are not as they should be."""
    tables = _Read(tensors)
    for place, entry in enumerate(_typed(data["families"], list, "families")):
        tables.add(entry, f"families[{place}]")
    named = _typed(data["ensembles"], dict, "ensembles")
    ensembles = {name: _ensemble(entry, f"ensembles[{name!r}]", tables) for name, entry in named.items()}
    tables.refuse_unused()
    return ensembles


def same_fields(entry: Any, wanted: list[str], where: str) -> dict[str, Any]:
    """`entry` if it is a mapping with exactly these fields; raises FileFormatError."""
    found = list(_typed(entry, dict, where))
    if set(found) != set(wanted):
        missing, unknown = [n for n in wanted if n not in found], [n for n in found if n not in wanted]
        raise FileFormatError(f"{where} lacks the fields {missing} and has unknown fields {unknown}")
    return entry  # type: ignore[no-any-return]


@dataclass
class _Written:
    """Tables while they are filled, and where in them each object is."""

    families: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    places: dict[int, int] = field(default_factory=dict)
    heights: dict[int, int] = field(default_factory=dict)
    seen: dict[int, str] = field(default_factory=dict)
    names: dict[tuple[Any, ...], str] = field(default_factory=dict)

    def tensor(self, value: Tensor, path: str) -> str:
        if id(value) not in self.seen:
            equal = (dtype_name(path, value), value.shape, fingerprint(value))
            if equal not in self.names:
                while path in self.tensors:
                    path += "'"
                self.names[equal], self.tensors[path] = path, value
            self.seen[id(value)] = self.names[equal]
        return self.seen[id(value)]

    def family(self, value: Family, path: str) -> int:
        if id(value) not in self.places:
            entry = _entry(value, path, self)
            try:
                check_family(value)
            except ValueError as error:
                raise ValueError(f"{path} cannot be saved: {error}") from None
            _measure(value, self.heights)
            self.places[id(value)] = len(self.families)
            self.families.append(entry)
        return self.places[id(value)]


@dataclass
class _Read:
    """Tables while they are read, and what of them was used."""

    tensors: Mapping[str, Tensor]
    families: list[Family] = field(default_factory=list)
    heights: dict[int, int] = field(default_factory=dict)
    used: set[str | int] = field(default_factory=set)

    def add(self, entry: Any, where: str) -> None:
        family = _build(entry, FAMILIES, where, self)
        try:
            check_family(family)
            _measure(family, self.heights)
        except ValueError as error:
            raise FileFormatError(f"{where}.{NAMES[type(family)]}: {error}") from None
        self.families.append(family)

    def tensor(self, name: Any, where: str) -> Tensor:
        if not isinstance(name, str) or name not in self.tensors:
            raise FileFormatError(f"{where} needs the tensor {_short(name)}, which is not in the file")
        self.used.add(name)
        return self.tensors[name]

    def family(self, place: Any, where: str) -> Family:
        if type(place) is not int or not 0 <= place < len(self.families):
            raise FileFormatError(f"{where} needs family {_short(place)}; 0..{len(self.families) - 1} come before it")
        self.used.add(place)
        return self.families[place]

    def refuse_unused(self) -> None:
        left = [name for name in self.tensors if name not in self.used]
        if left:
            raise FileFormatError(f"{len(left)} tensors belong to no family: {', '.join(left[:5])}")
        if idle := [place for place in range(len(self.families)) if place not in self.used]:
            raise FileFormatError(f"{len(idle)} families belong to no ensemble: {idle[:5]}")


def _ensemble_data(ensemble: Ensemble, name: str, tables: _Written) -> dict[str, Any]:
    for each, family in ensemble.families.items():
        try:
            check_members(family, ensemble.members)
        except ValueError as error:
            raise ValueError(f"{name}/{each} cannot be saved: {error}") from None
    places = {each: tables.family(family, f"{name}/{each}") for each, family in ensemble.families.items()}
    uniform = torch.equal(ensemble.weights, Ensemble({}, ensemble.members).weights)
    weights = None if uniform else ensemble.weights.tolist()
    return {"families": places, "members": written(ensemble.members), "weights": weights}


def _plain(value: Any, path: str, tables: _Written) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        return {"tensor": tables.tensor(value, path)}
    if isinstance(value, tuple):
        return [_plain(item, f"{path}/{number}", tables) for number, item in enumerate(value)]
    if type(value) in FAMILIES.values():
        return {"family": tables.family(value, path)}
    return _entry(value, path, tables)


def _entry(value: Any, path: str, tables: _Written) -> dict[str, Any]:
    if type(value) not in NAMES:
        raise TypeError(f"{path} is {type(value).__name__}, which files do not hold; they hold {', '.join(KINDS)}")
    held = {name: _plain(getattr(value, name), f"{path}/{name}", tables) for name in HINTS[NAMES[type(value)]]}
    return {NAMES[type(value)]: held}


def _ensemble(entry: Any, where: str, tables: _Read) -> Ensemble:
    same_fields(entry, ["families", "members", "weights"], where)
    listed = counted(entry["members"], f"{where}.members")
    members: tuple[int, ...] = _value(listed, tuple[int, ...], f"{where}.members", tables)
    weights = _weights(entry["weights"], len(members), f"{where}.weights", tables)
    families: dict[str, Family] = {}
    for name, place in _typed(entry["families"], dict, f"{where}.families").items():
        families[name] = tables.family(place, f"{where}.families[{name!r}]")
        try:
            check_members(families[name], members)
        except ValueError as error:
            raise FileFormatError(f"{where}.members do not fit tensor {name!r}: {error}") from None
    if not members:
        raise FileFormatError(f"{where}.members is empty; an ensemble needs at least one member")
    return Ensemble(families, members) if weights is None else Ensemble(families, members, weights)


def _weights(data: Any, count: int, where: str, tables: _Read) -> Tensor | None:
    if data is None:
        return None
    weights = torch.tensor(_value(data, tuple[float, ...], where, tables), dtype=torch.float64)
    if len(weights) != count:
        raise FileFormatError(f"{where} has {len(weights)} numbers for {count} members")
    if bool((weights < 0).any()) or not abs(float(weights.sum()) - 1.0) <= SLACK:
        raise FileFormatError(f"{where} are not negative and sum to one; got a sum of {float(weights.sum())}")
    return weights


def _value(data: Any, hint: Any, where: str, tables: _Read) -> Any:
    """The value that `data` stand for, of the type that `hint` says."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _either(data, args, where, tables)
    if hint in (Tensor, Family):
        word = "tensor" if hint is Tensor else "family"
        name = same_fields(data, [word], where)[word]
        return tables.tensor(name, where) if hint is Tensor else tables.family(name, where)
    if hint is Format or hint in NAMES:
        return _build(data, FORMATS if hint is Format else {NAMES[hint]: hint}, where, tables)
    if origin is tuple:
        items = enumerate(_typed(data, list, where))
        return tuple(_value(item, args[0], f"{where}[{number}]", tables) for number, item in items)
    if origin is Literal:
        if not isinstance(data, str) or data not in args:
            raise FileFormatError(f"{where} is {_short(data)}; wanted one of {', '.join(args)}")
        return data
    return _typed(data, hint, where)


def _either(data: Any, hints: tuple[Any, ...], where: str, tables: _Read) -> Any:
    """None where that is allowed; else a whole number where that is allowed and given; else the first other hint."""
    if data is None and NoneType in hints:
        return None
    others = [hint for hint in hints if hint not in (NoneType, int)]
    return data if type(data) is int and int in hints else _value(data, others[0], where, tables)


def _build(entry: Any, kinds: Mapping[str, type], where: str, tables: _Read) -> Any:
    if len(_typed(entry, dict, where)) != 1 or next(iter(entry)) not in kinds:
        raise FileFormatError(f"{where} is of the unknown kind {_short(list(entry))}; wanted one of {', '.join(kinds)}")
    (kind, fields), where = next(iter(entry.items())), f"{where}.{next(iter(entry))}"
    same_fields(fields, list(HINTS[kind]), where)
    held = {name: _value(fields[name], hint, f"{where}.{name}", tables) for name, hint in HINTS[kind].items()}
    try:
        return kinds[kind](**held)
    except (ValueError, TypeError) as error:
        raise FileFormatError(f"{where}: {error}") from None


def _typed(data: Any, wanted: type, where: str) -> Any:
    if type(data) is not wanted:
        raise FileFormatError(f"{where} is {_short(data)}; wanted {WORDS.get(wanted, wanted.__name__)}")
    return data


WORDS = {dict: "a mapping", list: "a list", int: "a whole number", float: "a decimal number", str: "a text"}


def _measure(family: Family, heights: dict[int, int]) -> None:
    """Note how many levels a family has; those inside it are noted already."""
    heights[id(family)] = 1 + max((heights.get(id(part), 0) for part in inner(family)), default=0)
    if heights[id(family)] > DEPTH:
        _refuse_deep()


def _refuse_deep() -> NoReturn:
    raise ValueError(f"families are nested more than {DEPTH} deep; join many ensembles at once, not one by one")


def _short(data: Any) -> str:
    text = repr(data)
    return text if len(text) <= 60 else f"{text[:57]}..."
