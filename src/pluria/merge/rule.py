"""What a leafwise merge is: a function of a piece of all members, after passes that measure the whole tensor.

    statistics = finish(sum of measure(piece) over the pieces)     for each pass, in order
    merged     = combine(piece, statistics)                        for each piece

A method is a function of its options that gives a `Rule`. The same rule merges modules, state dicts and files. Pieces
are fixed, and what was measured on them is added in their order: threads change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from pluria.numbers import members
from pluria.numbers.members import Differences

BLOCK = 2**17
"""Elements of a piece. What is measured in floats is added in pieces, so that this number is part of every result."""


@dataclass(frozen=True)
class Piece:
    """A run of elements of one tensor, of all members.

    name, shape   of the whole tensor
    start         flat index of the first element
    number        of this piece among the pieces of its scope, the tensor or the model
    rows          `[K, n]`, or `[K + 1, n]` with the base as the last: as they are stored where all are of one dtype of
                  16 bits, else in the dtype of the arithmetic
    weights       `[K]` float64, not negative, of sum one

    `values` and `base` are the rule's to overwrite, and are not to be kept: their memory may be used again.
    """

    name: str
    shape: torch.Size
    start: int
    number: int
    rows: Tensor
    weights: Tensor

    @property
    def stored(self) -> Tensor:
        """The members' rows alone, `[K, n]`."""
        return self.rows[: len(self.weights)]

    @property
    def arithmetic(self) -> torch.dtype:
        """float32 where members have 16 bits, else float64."""
        return torch.float32 if self.rows.dtype in members.SIXTEEN else self.rows.dtype

    @cached_property
    def values(self) -> Tensor:
        """The members `[K, n]` in the dtype of the arithmetic."""
        return self.stored.to(self.arithmetic)

    @cached_property
    def base(self) -> Tensor | None:
        """The base `[n]` of the same dtype, for rules that need one."""
        return self.rows[-1].to(self.arithmetic) if len(self.rows) > len(self.weights) else None

    @property
    def origin(self) -> Tensor:
        """The base `[n]`; ValueError where there is none."""
        if self.base is None:
            raise ValueError(f"tensor {self.name!r}: this merge starts from a base; give one")
        return self.base

    @property
    def deltas(self) -> Tensor:
        """Task vectors `[K, n]`: values minus base, in memory of their own."""
        return self.values - self.origin if self.apart is None else members.differences(self.rows)

    @cached_property
    def apart(self) -> Differences | None:
        """The same as they are stored, where loops take them so."""
        with_base = len(self.rows) > len(self.weights)
        return Differences(self.rows) if with_base and members.serves(self.rows, *members.SIXTEEN) else None

    @property
    def ranked(self) -> Tensor | Differences:
        """Task vectors for who only looks at them."""
        return self.deltas if self.apart is None else self.apart


def row_length(shape: torch.Size) -> int:
    """Elements of a row: of all axes but the first, at least one; a vector is one row."""
    return max(math.prod(shape[1:] if len(shape) > 1 else shape), 1)


def always(earlier: Any) -> bool:
    """A pass that is always needed."""
    return True


@dataclass(frozen=True)
class Pass:
    """One reading of a tensor before it is merged.

    measure   (piece, statistics of the passes before, or None) -> a Tensor, of one shape for all pieces of the scope
              with `counts`, a third argument holds the integers of some pieces before, or is None, and is added to
    finish    (their sum, statistics of the passes before) -> statistics: anything
    needed    whether the pass is made, from the statistics of the passes before; they stay as they are if not. The
              first pass always is
    counts    whether `measure` counts: gives integers, and takes those to add to
    stacked   `finish` takes one row for each piece, `[pieces, ...]`, in place of the sum
    """

    measure: Callable[..., Tensor]
    finish: Callable[[Tensor, Any], Any]
    needed: Callable[[Any], bool] = always
    counts: bool = False
    stacked: bool = False


@dataclass(frozen=True)
class Rule:
    """A leafwise merge.

    combine      (piece, statistics of the last pass, None without passes) -> merged elements `[n]`
    passes       what is measured first
    needs_base   whether it starts from a base model
    members      how many members it takes; None: any number
    pieces       "block": any run of elements; "row": whole rows (a vector is one row); "tensor": all at once, which
                 takes K times the largest tensor in memory
    scope        whether statistics are of each tensor or of the whole model
    between      whether what is merged lies between the members and the base, place by place; where it may lie beyond,
                 batch norm's means and variances become the members' mean, or a variance might be negative
    """

    combine: Callable[[Piece, Any], Tensor]
    passes: tuple[Pass, ...] = ()
    needs_base: bool = False
    members: int | None = None
    pieces: Literal["block", "row", "tensor"] = "block"
    scope: Literal["tensor", "model"] = "tensor"
    between: bool = True


@dataclass(frozen=True)
class Named:
    """Rules of some tensors by their names, and that of all others; a name that the models lack is refused."""

    some: Mapping[str, Rule]
    rest: Rule

    def __call__(self, name: str) -> Rule:
        """The rule of a tensor."""
        return self.some.get(name, self.rest)

    def check(self, names: Collection[str]) -> None:
        """Raise ValueError unless all tensors that have rules of their own are there."""
        if odd := [name for name in self.some if name not in names]:
            raise ValueError(
                f"the models have no {', '.join(odd[:5])}{', ...' * (len(odd) > 5)}; they have "
                f"{', '.join(list(names)[:5])}, ..."
            )


Rules = Rule | Callable[[str], Rule]
"""One rule, or the rule of each tensor by its name."""
