"""Leafwise merging in memory: an ensemble, or state dicts, to the tensors of one model.

The loop is that of files (`engine.py`), so that the bits are too. Tied names are merged once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Lock

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, Shared, Stacked, block
from pluria.core.params import Params
from pluria.merge.engine import CHUNK, run
from pluria.merge.leaves import Counters, leaves_of, whole_numbers
from pluria.merge.pieces import Task
from pluria.merge.rule import Rules


def leafwise(
    ensemble: Ensemble,
    rule: Rules,
    *,
    base: Params | None = None,
    dtype: torch.dtype | None = None,
    counters: Counters = "first",
    threads: int = 1,
    chunk: int = CHUNK,
) -> dict[str, Tensor]:
    """The members merged tensor by tensor, with the ensemble's own weights.

    rule       a `Rule`, or a function from a tensor's name to one
    base       the model that task vectors start from
    dtype      of floating tensors; by default that of the members
    counters   what becomes of batch norm's counts of batches: those of the base or "first" member, or their "sum"
    chunk      pieces that a thread takes at a time; like `threads`, it changes no bit

    Arithmetic is float32 for tensors of 16 bits, else float64, with one rounding at the end. Other integers must be
    equal and are copied. Tied names are merged once and share a tensor. Raises CheckpointError for a base of other
    names, shapes or dtypes, for NaN and Inf, and for integers that differ; ValueError where the rule needs a base.
    """
    first = {id(family): name for name, family in reversed(list(ensemble.families.items()))}
    once = {name: family for name, family in ensemble.families.items() if first[id(family)] == name}
    rows = _Rows(once, ensemble.members)
    outline = {name: torch.empty(f.shape, dtype=f.dtype, device="meta") for name, f in once.items()}
    members = [_Member(rows, outline, position, f"member {member}") for position, member in enumerate(ensemble.members)]
    origin = None if base is None else _Held(_own(base, ensemble.families, once), "the base")
    leaves = leaves_of(members, origin, rule, ensemble.weights, dtype=dtype)
    made = whole_numbers(members, origin, counters)
    made |= {leaf.name: torch.empty(leaf.shape, dtype=leaf.dtype) for leaf in leaves}

    def write(name: str, start: int, values: Tensor) -> None:
        made[name].view(-1)[start : start + len(values)] = values

    run(Task(members, origin, write, rows.forget), leaves, threads=threads, chunk=chunk)
    return {name: made[first[id(family)]] for name, family in ensemble.families.items()}


def _own(base: Params, families: Mapping[str, Family], once: Mapping[str, Family]) -> Params:
    """The base without the further names of tensors that are tied in the members."""
    return {name: value for name, value in base.items() if name in once or name not in families}


@dataclass(frozen=True)
class _Rows:
    """Values `[K, n]` of families: views where values are kept, else made once and forgotten when they are merged."""

    families: Mapping[str, Family]
    members: tuple[int, ...]
    made: dict[str, list[Tensor]] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def __call__(self, name: str) -> list[Tensor]:
        with self.lock:
            if name not in self.made:
                self.made[name] = [value.reshape(-1) for value in self._values(self.families[name])]
            return self.made[name]

    def forget(self, name: str) -> None:
        """Let go of what was made for a tensor."""
        self.made.pop(name, None)

    def _values(self, family: Family) -> list[Tensor]:
        if isinstance(family, Shared):
            return [family.value] * len(self.members)
        if isinstance(family, Stacked):
            rows = self.members if family.index is None else [family.index.index(member) for member in self.members]
            return [family.values[row] for row in rows]
        return list(block(family, self.members))


@dataclass(frozen=True)
class _Member:
    """One member of an ensemble, as a source."""

    rows: _Rows
    outline: Params
    position: int
    label: str

    def read(self, name: str, start: int, out: Tensor) -> None:
        out.copy_(self.rows(name)[self.position][start : start + len(out)])


@dataclass(frozen=True)
class _Held:
    """Tensors in memory, as a source."""

    outline: Params
    label: str

    def read(self, name: str, start: int, out: Tensor) -> None:
        out.copy_(self.outline[name].detach().reshape(-1)[start : start + len(out)])
