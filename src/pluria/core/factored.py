"""Factored: a base and a product of thin factors for each member, added (LoRA) or multiplied in (BatchEnsemble).

    value = base + left[i] @ right[i]      or      base * (left[i] @ right[i])

The product has the base's shape, or its first two axes: then it goes over the others, as over a kernel's places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pluria.core.family import Bits, Family, Shared, check_member, stored_bits
from pluria.numbers.narrow import narrowed


@dataclass(frozen=True)
class Factored:
    """`left` `[K, rows, r]` and `right` `[K, r, columns]` around `base`, computed in float64 and rounded once."""

    base: Family
    left: Tensor
    right: Tensor
    op: Literal["add", "multiply"]

    @property
    def shape(self) -> torch.Size:
        return self.base.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.base.dtype

    @property
    def size(self) -> int | None:
        return len(self.left) if self.base.size is None else min(self.base.size, len(self.left))

    def write(self, member: int, out: Tensor) -> None:
        check_member(member, self.size)
        value = torch.empty(self.shape, dtype=self.dtype, device=out.device)
        self.base.write(member, value)
        product = self.left[member].to(torch.float64) @ self.right[member].to(torch.float64)
        product = product.view(spread(self.shape, product.shape[1])).to(out.device)
        wide = value.to(torch.float64)
        out.copy_(narrowed(wide + product if self.op == "add" else wide * product, out.dtype))

    def bits(self, members: Sequence[int]) -> Bits:
        factors, base = stored_bits(self.left) + stored_bits(self.right), self.base.bits(members)
        thin = len(members) * factors // len(self.left)
        # A member by itself is a whole tensor; together they share the base.
        whole = base.members * (len(members) if isinstance(self.base, Shared) else 1)
        return Bits(base.file + factors, whole, base.planes + thin)


def spread(shape: torch.Size, columns: int) -> tuple[int, ...]:
    """The shape of a product with so many columns, so that it goes with a base of `shape`.

    Raises ValueError where it does not.
    """
    if len(shape) < 2 or columns not in (shape[1], shape[1:].numel()):
        raise ValueError(f"a product of {columns} columns does not go with a base of shape {tuple(shape)}")
    return tuple(shape) if columns == shape[1:].numel() else (*shape[:2], *(1 for _ in shape[2:]))
