"""Whether merged checkpoints are right: against float64, computed tensor by tensor in the slow and obvious way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

LOOKED_AT = ("self_attn.q_proj", "mlp.down_proj", "layernorm")
"""Parts of the names of the tensors that are compared, of the first and the last layer."""


@dataclass(frozen=True)
class Check:
    """How far a result is from float64.

    compared   elements that were compared
    rounded    share of them that are the reference, rounded once
    farthest   largest distance from the unrounded reference, in units of the last place there; one half is perfect
    off        elements farther than one unit
    density    share of the task vectors' elements that the reference keeps: exactly what was asked for
    """

    compared: int
    rounded: float
    farthest: float
    off: int
    density: float


def check(method: str, files: list[Path], out: Path, *, density: float) -> Check:
    """Compare a merged file with the reference of its method."""
    wanted = [name for name in names(out) if any(part in name for part in LOOKED_AT)]
    ends = [name for name in wanted if ".0." in name or name.startswith("model.layers.15.")]
    compared = rounded = off = kept = places = 0
    farthest = 0.0
    for name in ends:
        base, *members = (read(file, name).double() for file in files)
        if method == "ties":
            masks = [largest(member - base, density) for member in members]
            exact = base + elected([(m - base) * mask for m, mask in zip(members, masks, strict=True)])
            kept, places = kept + sum(int(mask.sum()) for mask in masks), places + sum(mask.numel() for mask in masks)
        else:
            exact = torch.stack(members).mean(0)
        made = read(out, name)
        distance = (made.double() - exact).abs() / last_place(exact)
        compared, off = compared + made.numel(), off + int((distance > 1).sum())
        rounded += int((made == exact.bfloat16()).sum())
        farthest = max(farthest, float(distance.max()))
    return Check(compared, rounded / compared, farthest, off, kept / places if places else 1.0)


def largest(delta: Tensor, density: float) -> Tensor:
    """Exactly int(density n) of the largest magnitudes; of equal ones the first."""
    flat = delta.flatten()
    order = flat.abs().argsort(descending=True, stable=True)[: int(density * flat.numel())]
    return torch.zeros(flat.shape, dtype=torch.float64).index_fill_(0, order, 1.0).view(delta.shape)


def elected(deltas: list[Tensor]) -> Tensor:
    """The mean of those that have the sign of the sum; plus where it is zero."""
    stacked = torch.stack(deltas)
    sign = torch.where(stacked.sum(0) >= 0, 1.0, -1.0)
    agree = (stacked.sign() == sign).double()
    return (stacked * agree).sum(0) / agree.sum(0).clamp(min=1)


def last_place(exact: Tensor) -> Tensor:
    """The distance of neighbours in bfloat16 at these numbers."""
    return torch.exp2(torch.floor(torch.log2(exact.abs().clamp(min=2.0**-120))) - 7)


def names(file: Path) -> list[str]:
    """Names in a file."""
    with safe_open(file, "pt") as handle:
        return sorted(handle.keys())


def read(file: Path, name: str) -> Tensor:
    """One tensor."""
    with safe_open(file, "pt") as handle:
        value: Any = handle.get_tensor(name)
    return value  # type: ignore[no-any-return]
