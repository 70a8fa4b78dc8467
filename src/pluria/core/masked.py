"""Masked: a base with some elements of each member set to zero; the masks are kept as bits.

value = base[i] * mask[i]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.core.family import Bits, Family, Shared, check_member, stored_bits
from pluria.numbers.packing import pack, unpack


@dataclass(frozen=True)
class Masked:
    """Member i of `base`, or the one base where that is shared, under row i of `masks`: uint8 `[K, bytes]` of bits."""

    base: Family
    masks: Tensor

    @property
    def shape(self) -> torch.Size:
        return self.base.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def size(self) -> int | None:
        return len(self.masks) if self.base.size is None else min(self.base.size, len(self.masks))

    def mask(self, member: int) -> Tensor:
        """The kept elements of one member, bool of the family's shape."""
        check_member(member, self.size)
        return unpack(self.masks[member], 1, self.shape.numel()).view(self.shape).to(torch.bool)

    def write(self, member: int, out: Tensor) -> None:
        check_member(member, self.size)
        self.base.write(member, out)
        # Filling instead of multiplying: zero times infinity is no zero, and zero times minus one is not 0.0.
        out.masked_fill_(~self.mask(member).to(out.device), 0)

    def bits(self, members: Sequence[int]) -> Bits:
        base, kept = self.base.bits(members), [int(self.mask(member).sum()) for member in members]
        one = self.dtype.itemsize * 8
        if not isinstance(self.base, Shared):
            return base + Bits(stored_bits(self.masks), 0, 0)
        count = self.shape.numel()
        return Bits(base.file + stored_bits(self.masks), sum(kept) * one, count * (one + len(members)))


def masked(base: Family, masks: Tensor) -> Masked:
    """A masked family of bool masks `[K, *shape]`."""
    if masks.shape[1:] != base.shape or masks.dtype is not torch.bool:
        raise ValueError(f"masks are bool [K, *{tuple(base.shape)}]; got {masks.dtype} {tuple(masks.shape)}")
    return Masked(base, torch.stack([pack(mask.reshape(-1).to(torch.int64), 1) for mask in masks]))
