"""What K members of one linear layer `[O, D]` are made of, in two forms that a tile of the product can read.

Planes   one-byte floor codes [O, D] and the bits of eight members in one byte [P, O, D]     code + bit - zero
Drawn    the base [O, D] and the address of every member                                     rounded in the tile

A member's weight is its integer times the scale of its output channel, or of its group of inputs: scale and zero point
are float32 `[O, G]`. Integers are exact in bfloat16, so only products and sums round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.core.coded import Coded
from pluria.core.family import Family
from pluria.core.rounded import Rounded
from pluria.numbers import kernel
from pluria.numbers.format import Integer
from pluria.numbers.gpu import limits, signed
from pluria.numbers.grid import Grid
from pluria.numbers.packing import unpack
from pluria.numbers.rounding import Address, codes, decode, floor_codes, round_stochastic

BYTE = 8
"""Members whose bits share a byte."""


@dataclass(frozen=True)
class Planes:
    """Two bytes per weight for up to eight members: the traffic of one bfloat16 model.

    floor uint8 `[O, D]`, planes uint8 `[P, O, D]`
    """

    floor: Tensor
    planes: Tensor
    scale: Tensor
    zero: Tensor
    count: int

    def integers(self, member: int) -> Tensor:
        """Unscaled weights `[O, D]` of the member at this position, float32."""
        up = (self.planes[member // BYTE] >> member % BYTE) & 1
        return (self.floor + up).to(torch.float32) - spread(self.zero, self.floor.shape[1])


@dataclass(frozen=True)
class Drawn:
    """The base and addresses: nothing is stored for a member. `grid` is that of the base, `addresses` one for each.

    `groups` and `masks` repeat the addresses as int32 `[K]` beside the base.
    """

    base: Tensor
    grid: Grid
    addresses: tuple[Address, ...]
    scale: Tensor
    zero: Tensor
    groups: Tensor
    masks: Tensor

    @property
    def count(self) -> int:
        return len(self.addresses)

    def integers(self, member: int) -> Tensor:
        """Unscaled weights `[O, D]` of the member at this position, float32."""
        code = codes(self.base, self.grid, self.addresses[member]).view(self.base.shape)
        return code.to(torch.float32) - spread(self.zero, self.base.shape[1])


Operand = Planes | Drawn


def unfit(family: Family) -> str | None:
    """Why a family is no operand, None where it is one."""
    if not isinstance(family, Rounded | Coded):
        return f"it is {type(family).__name__}, and only Rounded and Coded families have integer codes"
    grid = family.parts(0)[1] if isinstance(family, Rounded) else family.grids[0]
    if len(family.shape) != 2 or not isinstance(grid.format, Integer):
        return f"its shape is {tuple(family.shape)} in {grid.format.name}; a matrix in an integer format is wanted"
    if grid.layout.outer != 1 or (isinstance(family, Coded) and len(family.grids) > 1):
        return "its output channels are not its rows" if grid.layout.outer != 1 else "its members have several grids"
    if isinstance(family, Rounded) and (len(family.bases) > 1 or family.coupling is None):
        return "a shared floor needs stochastic rounding of one base"
    if isinstance(family, Coded) and family.planes is None:
        return "its members have codes of their own; export them as planes"
    return None


def planes(family: Family, members: Sequence[int]) -> Planes:
    """These members as one-byte floor codes and bits, from a rounded family or from stored planes.

    Raises ValueError where the family has no shared floor in an integer format.
    """
    _refuse(family)
    if isinstance(family, Rounded) and (quick := _quick(family, members)) is not None:
        return quick
    floor, grid, bits = _stored(family, members) if isinstance(family, Coded) else _made(family, members)
    packed = torch.zeros((-(-len(members) // BYTE), floor.numel()), dtype=torch.uint8, device=floor.device)
    for position, bit in enumerate(bits):
        packed[position // BYTE] |= bit.to(torch.uint8) << position % BYTE
    shape = tuple(family.shape)
    return Planes(floor.view(shape), packed.view(-1, *shape), *_tables(grid, shape), len(members))


def drawn(family: Family, members: Sequence[int]) -> Drawn:
    """These members as the base and their addresses.

    Raises ValueError for families that are not drawn from one base in an integer format.
    """
    _refuse(family)
    if not isinstance(family, Rounded):
        raise ValueError("stored planes have no base to draw members from; use the form 'planes'")
    value, grid = family.parts(0)
    addresses = tuple(place for member in members if (place := family.address(member)) is not None)
    groups = torch.tensor([signed(place.group) for place in addresses], dtype=torch.int32, device=value.device)
    masks = torch.tensor([place.mask for place in addresses], dtype=torch.int32, device=value.device)
    return Drawn(value, grid, addresses, *_tables(grid, value.shape), groups, masks)


def spread(table: Tensor, inputs: int) -> Tensor:
    """`[..., inputs]` of a value for each group `[..., G]`."""
    return table.repeat_interleave(inputs // table.shape[-1], dim=-1)


def _stored(family: Coded, members: Sequence[int]) -> tuple[Tensor, Grid, Iterator[Tensor]]:
    """Floor codes uint8, their grid, and the bits of one member after the other, all flat."""
    count, grid, held = family.shape.numel(), family.grids[0], family.planes
    assert held is not None
    floor = unpack(family.codes[0], grid.format.bits, count).to(torch.uint8)
    return floor, grid, (unpack(held[member], 1, count) for member in members)


def _made(family: Family, members: Sequence[int]) -> tuple[Tensor, Grid, Iterator[Tensor]]:
    """The same by rounding, which is fast: a member's bit is set where its value is not that of the floor."""
    assert isinstance(family, Rounded)
    value, grid = family.parts(0)
    code = floor_codes(value, grid)
    floor = decode(code, grid, torch.empty(value.shape, dtype=torch.float32, device=value.device))
    made, places = torch.empty_like(floor), [family.address(member) for member in members]
    bits = ((round_stochastic(value, grid, place, made) != floor).view(-1) for place in places if place is not None)
    return code.to(torch.uint8), grid, bits


def _quick(family: Rounded, members: Sequence[int]) -> Planes | None:
    """The same on a CPU, from members' codes as the compiled loops write them; None where they do not."""
    value, grid = family.parts(0)
    made = torch.empty((len(members), *value.shape), dtype=torch.int8, device=value.device)
    if not kernel.serves(value, grid, made[0]):
        return None
    from pluria.predict.kernels.compiled_planes import settled  # imports Numba

    for member, out in zip(members, made, strict=True):
        family.write_codes(member, out)
    scale, zero = _tables(grid, value.shape)
    floor, bits = settled(made, value.detach().to(torch.float32), scale, float(zero[0, 0]))
    return Planes(floor, bits, scale, zero, len(members))


def _tables(grid: Grid, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Scale and zero point `[O, G]`, also where one scale stands for the whole tensor."""
    zero, _ = limits(grid)
    if grid.scale.numel() == 1:
        return grid.scale.expand(shape[0], 1).contiguous(), zero.expand(shape[0], 1).contiguous()
    return grid.scale.contiguous(), zero


def _refuse(family: Family) -> None:
    if (why := unfit(family)) is not None:
        raise ValueError(f"the family is no operand of a product for K members: {why}")
