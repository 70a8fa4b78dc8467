"""Gaussian: mean + std * z + sum_r factors[r] z_r; the coefficients z_r are shared by all tensors of a member."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.core.family import Bits, Family, check_member, stored_bits
from pluria.core.rounded import base_value
from pluria.numbers.key import FACTORS, NORMAL, Key, tensor_id
from pluria.numbers.philox import normals

CHUNK = 2**18


@dataclass(frozen=True)
class Gaussian:
    """Normal draws around member zero of `mean`; `std` has its shape, `factors` is `[R, *shape]` or None.

    Normals agree between devices within float32 rounding, not bit for bit.
    """

    mean: Family
    std: Tensor
    name: str
    key: Key
    factors: Tensor | None = None

    @property
    def shape(self) -> torch.Size:
        return self.mean.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.mean.dtype

    @property
    def size(self) -> int | None:
        return None

    def write(self, member: int, out: Tensor) -> None:
        check_member(member, self.size)
        mean, std = base_value(self.mean, 0).reshape(-1), self.std.reshape(-1)
        drawn = torch.empty(mean.shape, dtype=torch.float32, device=mean.device)
        for start in range(0, mean.numel(), CHUNK):
            part = slice(start, min(start + CHUNK, mean.numel()))
            z = self._normals(self.name, member, part, mean.device)
            drawn[part] = mean[part].to(torch.float32) + std[part].to(torch.float32) * z
        if self.factors is not None:
            z = self._normals(FACTORS, member, slice(0, len(self.factors)), mean.device)
            drawn += torch.tensordot(z, self.factors.reshape(len(z), -1).to(torch.float32), dims=1)
        out.copy_(drawn.view(self.shape))

    def _normals(self, name: str, member: int, part: slice, device: torch.device) -> Tensor:
        place = {"tensor": tensor_id(name), "group": member, "start": part.start, "stop": part.stop}
        return normals(self.key, stream=NORMAL, device=device, **place)

    def bits(self, members: Sequence[int]) -> Bits:
        own = stored_bits(self.std) + (0 if self.factors is None else stored_bits(self.factors))
        one = self.mean.bits([0]).members
        return Bits(self.mean.bits([0]).file + own + 64, len(members) * one, len(members) * one)
