"""Fitted pools as plain data and back, so that a file holds them beside the ensemble: `about["pool"]`.

    {"log_linear": {"exponents": [0.8, 0.4], "clamped": false}}

A table names each kind; nothing else is ever built. Numbers go through JSON bit for bit.
"""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pluria.pool.cascade import Cascade
from pluria.pool.chain import Chain
from pluria.pool.conformal import Conformal
from pluria.pool.extremised import Extremised
from pluria.pool.fusion import Fusion
from pluria.pool.gate import Gate
from pluria.pool.gaussian import VarianceScale
from pluria.pool.labels import LabelTemperatures
from pluria.pool.linear import Linear
from pluria.pool.log_linear import LogLinear
from pluria.pool.member_temperature import MemberTemperatures
from pluria.pool.quantile_weights import QuantileWeights
from pluria.pool.sets import PredictionSets
from pluria.pool.temperature import Temperature
from pluria.pool.vector_scaling import VectorScaling

LARGEST = 1_000_000
"""Most numbers of one pool: they stand in the header of a file, which takes 100 MB."""


@dataclass(frozen=True)
class Kind:
    """A class of fitted pools, and how many members and classes one was fitted on, where that matters."""

    build: type[Any]
    members: Callable[[Any], int | None] = lambda pool: None
    classes: Callable[[Any], int | None] = lambda pool: None


KINDS: dict[str, Kind] = {
    "cascade": Kind(Cascade, lambda pool: pool.members, lambda pool: pool.classes),
    "conformal": Kind(Conformal, classes=lambda pool: len(pool.levels)),
    "extremised": Kind(Extremised, classes=lambda pool: pool.base and len(pool.base)),
    "fusion": Kind(Fusion, lambda pool: pool.members),
    "gate": Kind(Gate, lambda pool: len(pool.bias), lambda pool: pool.classes),
    "label_temperatures": Kind(LabelTemperatures, classes=lambda p: len(p.values) if len(p.values) > 1 else None),
    "linear": Kind(Linear, lambda pool: len(pool.weights)),
    "log_linear": Kind(LogLinear, lambda pool: len(pool.exponents)),
    "member_temperatures": Kind(MemberTemperatures, lambda pool: len(pool.values)),
    "prediction_sets": Kind(PredictionSets, classes=lambda pool: pool.classes),
    "quantile_weights": Kind(QuantileWeights, lambda pool: pool.members, lambda pool: len(pool.levels)),
    "temperature": Kind(Temperature),
    "variance_scale": Kind(VarianceScale, classes=lambda pool: 2),
    "vector_scaling": Kind(VectorScaling, classes=lambda pool: len(pool.scales)),
}
"""What can be stored; a chain of these is the kind `chain`."""


def to_dict(pool: Any) -> dict[str, Any]:
    """A fitted pool, or a chain of them, as what JSON holds.

    Raises TypeError for anything else, ValueError for more than a million numbers.
    """
    if isinstance(pool, Chain):
        return {"chain": {"steps": [step if isinstance(step, str) else to_dict(step) for step in pool.steps]}}
    for name, kind in KINDS.items():
        if type(pool) is kind.build:
            data = _listed(dataclasses.asdict(pool))
            if (size := _count(data)) > LARGEST:
                raise ValueError(f"this {name} pool has {size} numbers, and a file takes {LARGEST}; keep it apart")
            return {name: data}
    raise TypeError(f"{type(pool).__name__} is no fitted pool; those are {', '.join(sorted([*KINDS, 'chain']))}")


def from_dict(data: Mapping[str, Any]) -> Any:
    """The pool that `to_dict` was given, bit for bit.

    Raises ValueError for an unknown kind, fields that are missing or not known, and numbers that make no such pool.
    """
    kind, given = next(iter(data.items())) if isinstance(data, Mapping) and len(data) == 1 else ("", None)
    if not isinstance(given, Mapping):
        raise ValueError(f"a pool is one kind with its fields, not {str(data)[:80]!r}")
    if kind != "chain" and kind not in KINDS:
        raise ValueError(f"{kind!r} is no kind of pool known here; those are {', '.join(sorted([*KINDS, 'chain']))}")
    build = Chain if kind == "chain" else KINDS[kind].build
    wanted = {field.name for field in dataclasses.fields(build)}
    if set(given) != wanted or (kind == "chain" and not isinstance(given["steps"], list)):
        raise ValueError(f"a {kind} pool has the fields {sorted(wanted)}, lists where many, not {str(given)[:80]}")
    if kind == "chain":
        try:
            return Chain(tuple(step if isinstance(step, str) else from_dict(step) for step in given["steps"]))
        except RecursionError:
            raise ValueError("chains stand within chains beyond all measure") from None
    try:
        return build(**given)
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"this is no {kind} pool: {error}") from None


def fitted_for(pool: Any) -> tuple[int | None, int | None]:
    """How many members K and classes C (levels, labels) a pool was fitted on; None: any number will do.

    >>> fitted_for(LogLinear((0.5, 0.7))), fitted_for(Temperature(2.0))
    ((2, None), (None, None))
    """
    if isinstance(pool, Chain):
        every = [fitted_for(step) for step in pool.steps if not isinstance(step, str)]
        members, classes = ([size for size in sizes if size] for sizes in (*zip(*every, strict=True), (), ())[:2])
        return (members[0] if members else None), (classes[0] if classes else None)
    for kind in KINDS.values():
        if type(pool) is kind.build:
            return kind.members(pool), kind.classes(pool)
    raise TypeError(f"{type(pool).__name__} is no fitted pool")


def check_pool(pool: Any, members: int, classes: int | None = None) -> None:
    """Raise ValueError where a pool was fitted on another number of members or classes."""
    for what, wanted, given in zip(("members", "classes"), fitted_for(pool), (members, classes), strict=True):
        if None not in (wanted, given) and wanted != given:
            raise ValueError(f"the pool was fitted on {wanted} {what}, and here are {given}; fit it again for these")


def _listed(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, Mapping):
        return {name: _listed(one) for name, one in value.items()}
    return [_listed(one) for one in value] if isinstance(value, tuple | list) else value


def _count(value: Any) -> int:
    if isinstance(value, Mapping):
        return sum(map(_count, value.values()))
    return sum(map(_count, value)) if isinstance(value, list) else 1
