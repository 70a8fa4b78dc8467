"""A family: one tensor with a lazy leading member axis. Member i is a pure function of i.

Shared   value                                 every member the same
Stacked  values[row of i]                      tensors that are kept one by one
Affine   origin + coordinates[i] . directions  planes, paths, interpolations
Joined   families end to end                   unions
Rounded, Coded, Gaussian                       in their own files
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from pluria.core.params import memory
from pluria.numbers.key import Key
from pluria.numbers.narrow import narrowed

T = TypeVar("T")
SEED = 64
"""Bits of a key in a file."""


@dataclass(frozen=True)
class Bits:
    """What storing members costs, in bits: `file` as a `.pluria` file keeps them; `members` each one by itself in its
    own number system (K b bits per rounded weight, as the literature counts); `planes` one shared copy of floor codes
    and one bit per member and weight (b + K bits), equal to `members` where no floor is known to be shared."""

    file: int
    members: int
    planes: int

    def __add__(self, other: Bits) -> Bits:
        return Bits(self.file + other.file, self.members + other.members, self.planes + other.planes)

    @staticmethod
    def same(bits: int) -> Bits:
        return Bits(bits, bits, bits)


@runtime_checkable
class Family(Protocol):
    """One lazy stacked tensor; frozen dataclasses implement it."""

    @property
    def shape(self) -> torch.Size: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def size(self) -> int | None:
        """Number of members that exist, None where there is no end."""
        ...

    def write(self, member: int, out: Tensor) -> None:
        """Write member number `member` into `out`, of the family's shape, any dtype, device and memory format."""
        ...

    def bits(self, members: Sequence[int]) -> Bits: ...


@dataclass(frozen=True)
class Shared:
    """Every member has the same value."""

    value: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.value.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.value.dtype

    @property
    def size(self) -> int | None:
        return None

    def write(self, member: int, out: Tensor) -> None:
        check_member(member, self.size)
        out.copy_(self.value)

    def bits(self, members: Sequence[int]) -> Bits:
        return Bits.same(stored_bits(self.value))


@dataclass(frozen=True)
class Stacked:
    """Values `[rows, *shape]` kept one by one; member i is row i, or the row of i in `index` where that is given."""

    values: Tensor
    index: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.index is not None and len(self.index) != len(self.values):
            raise ValueError(f"{len(self.values)} rows are indexed by {len(self.index)} member numbers")

    @property
    def shape(self) -> torch.Size:
        return self.values.shape[1:]

    @property
    def dtype(self) -> torch.dtype:
        return self.values.dtype

    @property
    def size(self) -> int | None:
        return len(self.values) if self.index is None else max(self.index) + 1

    def write(self, member: int, out: Tensor) -> None:
        check_member(member, self.size)
        if self.index is not None and member not in self.index:
            raise IndexError(f"member {member} is not kept; members {self.index} are")
        out.copy_(self.values[member if self.index is None else self.index.index(member)])

    def bits(self, members: Sequence[int]) -> Bits:
        one = stored_bits(self.values[0])
        return Bits(len(self.values) * one, len(members) * one, len(members) * one)


@dataclass(frozen=True)
class Affine:
    """origin + sum_d coordinates[i, d] directions[d], summed in float64 and rounded once.

    `origin` has the tensor's shape, `directions` `[D, *shape]`, `coordinates` `[K, D]` float64.
    """

    origin: Tensor
    directions: Tensor
    coordinates: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.origin.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.origin.dtype

    @property
    def size(self) -> int | None:
        return len(self.coordinates)

    def write(self, member: int, out: Tensor) -> None:
        check_member(member, self.size)
        steps = self.coordinates[member].to(torch.float64)
        total = self.origin.to(torch.float64)
        for step, direction in zip(steps, self.directions, strict=True):
            total = total + step * direction.to(torch.float64)
        out.copy_(narrowed(total, out.dtype))

    def bits(self, members: Sequence[int]) -> Bits:
        one = stored_bits(self.origin)
        file = one + stored_bits(self.directions) + stored_bits(self.coordinates)
        return Bits(file, len(members) * one, len(members) * one)


@dataclass(frozen=True)
class Joined:
    """Families end to end: member i is `ids[p][j]` of `parts[p]`, where j counts from the end of the parts before."""

    parts: tuple[Family, ...]
    ids: tuple[tuple[int, ...], ...]

    @property
    def shape(self) -> torch.Size:
        return self.parts[0].shape

    @property
    def dtype(self) -> torch.dtype:
        return self.parts[0].dtype

    @property
    def size(self) -> int | None:
        return sum(map(len, self.ids))

    def write(self, member: int, out: Tensor) -> None:
        part, own = self.place(member)
        self.parts[part].write(own, out)

    def place(self, member: int) -> tuple[int, int]:
        """Number of the part, and the member's number in it."""
        check_member(member, self.size)
        for part, ids in enumerate(self.ids):
            if member < len(ids):
                return part, ids[member]
            member -= len(ids)
        raise AssertionError("unreachable: the member was checked")

    def bits(self, members: Sequence[int]) -> Bits:
        places = [self.place(member) for member in members]
        total = Bits.same(0)
        for number, part in enumerate(self.parts):
            if own := [member for where, member in places if where == number]:
                total += part.bits(own)
        return total


def block(
    family: Family, members: Sequence[int], *, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """`[len(members), *shape]` of a family; row j depends on members[j] only. On the CPU unless a device is given."""
    out = torch.empty((len(members), *family.shape), dtype=dtype or family.dtype, device=device)
    for row, member in zip(out, members, strict=True):
        family.write(member, row)
    return out


def map_tensors(value: T, change: Callable[[Tensor], Tensor]) -> T:
    """The same dataclass with every tensor inside it changed; caches are left behind."""
    return _map(value, change)  # type: ignore[no-any-return]


def kept_bits(values: Iterable[Any]) -> int:
    """Bits of the tensors in some families, those that are one and the same memory once, and 64 for each key."""
    parts = list(_parts(values, set()))
    held = {memory(part): stored_bits(part) for part in parts if isinstance(part, Tensor)}
    return sum(held.values()) + SEED * len({part for part in parts if isinstance(part, Key)})


def check_member(member: int, size: int | None) -> None:
    """Raise IndexError where a member does not exist."""
    if member < 0 or (size is not None and member >= size):
        raise IndexError(f"member {member} does not exist; members are 0..{'' if size is None else size - 1}")


def stored_bits(tensor: Tensor) -> int:
    """Bits of a tensor's elements as stored."""
    return tensor.numel() * tensor.element_size() * 8


def _parts(value: Any, seen: set[int]) -> Iterator[Any]:
    """Tensors and dataclasses inside a value, each object once."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield value
        for field in dataclasses.fields(value):
            if field.init:
                yield from _parts(getattr(value, field.name), seen)
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for item in value:
            yield from _parts(item, seen)


def _map(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_map(item, change) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: _map(getattr(value, f.name), change) for f in dataclasses.fields(value) if f.init}
        return dataclasses.replace(value, **fields)
    return value
