"""Rounding column by column with error feedback: what one column lost, the columns after it make up for.

    H = U D^2 U^T, U unit upper triangular          w'_j = w_j + sum_{i<j} (w_i - q_i) U_ij          q_j = round(w'_j)

The same as moving e = (w'_j - q_j) / C_jj onto the later columns, w' <- w' - e C_j, with C the upper Cholesky factor of
H^-1, and needs no inverse. Where H is diagonal U is the identity, and this is plain rounding to the last bit. Each step
is unbiased given those before it, so E[q] = w where nothing clips. All blocks of rows are done together.

Source of the feedback with nearest rounding: Frantar, Ashkboos, Hoefler and Alistarh, "GPTQ", ICLR 2023.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.numbers.format import Integer

COLUMNS = 128
"""Columns that are rounded between two matrix products with all the columns before."""


@dataclass(frozen=True, eq=False)
class Columns:
    """A weight as columns `[blocks, d, rows]` float32 in the order of rounding, on its grid.

    `feedback` float32 `[blocks, d, d]` holds U^T, `scale` and `zero` are `[blocks, groups, rows]`, and `group`
    int64 `[blocks, d]` says which of the groups each column belongs to.
    """

    format: Integer
    weight: Tensor
    feedback: Tensor
    scale: Tensor
    zero: Tensor | None
    group: Tensor


def factor(second: Tensor, damping: float) -> Tensor | None:
    """U^T, float32 `[blocks, d, d]`, of moments float64 `[blocks, d, d]`, `damping` times their mean diagonal added.

    A block of zeros gets the identity. None where a block is not positive definite, or is so by rounding errors alone.
    """
    size, mean = second.shape[-1], second.diagonal(dim1=-2, dim2=-1).mean(-1)
    extra = torch.where(mean > 0, damping * mean, 1.0)
    damped = second + torch.diag_embed(extra.unsqueeze(-1).expand(-1, size))
    # U starts from the last column: it is the lower factor of H read backwards, without its diagonal.
    lower, failed = torch.linalg.cholesky_ex(damped.flip(-2, -1))
    pivots = lower.diagonal(dim1=-2, dim2=-1)
    floor = damped.diagonal(dim1=-2, dim2=-1).flip(-1) * size * torch.finfo(torch.float64).eps
    if bool(failed.any()) or not bool((pivots.square() > floor).all()):
        return None
    upper: Tensor = (lower / pivots.unsqueeze(-2)).flip(-2, -1)
    return upper.mT.to(torch.float32).contiguous()


def round_columns(columns: Columns, uniforms: Tensor | None) -> tuple[Tensor, int]:
    """Codes, uint8 in the shape of the weight, and how many weights met an end of the grid.

    `uniforms` are `[blocks, d, rows]`, in the order of rounding; None rounds to the nearest, ties to the even code.
    """
    weight, feedback = columns.weight, columns.feedback
    lost = torch.zeros_like(weight)
    codes = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    clipped, size = 0, weight.shape[1]
    for start in range(0, size, COLUMNS):
        stop = min(start + COLUMNS, size)
        scale, zero = _spread(columns, start, stop)
        wanted = weight[:, start:stop] + feedback[:, start:stop, :start] @ lost[:, :start]
        unit = torch.empty_like(wanted)
        for j, at in enumerate(range(start, stop)):
            wanted[:, j] += (feedback[:, at : at + 1, start:at] @ lost[:, start:at]).squeeze(1)
            v = wanted[:, j] / scale[:, j]
            v = torch.clamp(v, *columns.format.limits(None if zero is None else zero[:, j]))  # type: ignore[arg-type]
            unit[:, j] = _step(v, None if uniforms is None else uniforms[:, at])
            lost[:, at] = weight[:, at] - unit[:, j] * scale[:, j]
        codes[:, start:stop] = columns.format.encode(unit, zero)
        clipped += _beyond(wanted / scale, columns.format, zero)
    return codes, clipped


def _spread(columns: Columns, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
    """Scale and zero point of some columns, `[blocks, columns, rows]`."""
    at = columns.group[:, start:stop, None].expand(-1, -1, columns.scale.shape[-1])
    return columns.scale.gather(1, at), None if columns.zero is None else columns.zero.gather(1, at)


def _step(v: Tensor, uniform: Tensor | None) -> Tensor:
    if uniform is None:
        return torch.round(v)
    low = torch.floor(v)
    return low + (uniform < v - low)


def _beyond(v: Tensor, format: Integer, zero: Tensor | None) -> int:
    """How many lie beyond the grid, by more than the rounding error of w / s."""
    return int(((v - torch.clamp(v, *format.limits(zero))).abs() > v.abs() * 2.0**-20).sum())  # type: ignore[arg-type]
