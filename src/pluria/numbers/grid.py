"""A grid over one tensor: which weights share a scale, and the scales that fit them.

A tensor is seen as [blocks, outer, channels, inner]: `channels` is its output axis, the inputs of a channel are
`outer` x `inner`, and `blocks` are the groups of a grouped transposed convolution (one otherwise). One scale stands for
`group` consecutive inputs of one output channel, or for the whole tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from pluria.numbers.format import Format

Granularity = Literal["tensor", "channel"] | int
"""One scale per tensor, per output channel, or per group of that many inputs of an output channel."""


@dataclass(frozen=True)
class Layout:
    """How the flat elements of a tensor map to output channels and inputs."""

    blocks: int
    outer: int
    channels: int
    inner: int

    @property
    def rows(self) -> int:
        return self.blocks * self.channels

    @property
    def inputs(self) -> int:
        return self.outer * self.inner

    @property
    def numel(self) -> int:
        return self.rows * self.inputs

    def to_rows(self, tensor: Tensor) -> Tensor:
        """`[rows, inputs]` of a tensor; a view where the output axis comes first."""
        view = tensor.reshape(self.blocks, self.outer, self.channels, self.inner)
        return view.transpose(1, 2).reshape(self.rows, self.inputs)

    def from_rows(self, rows: Tensor, shape: Sequence[int]) -> Tensor:
        """The inverse of `to_rows`."""
        view = rows.reshape(self.blocks, self.channels, self.outer, self.inner)
        return view.transpose(1, 2).reshape(tuple(shape))

    def place(self, start: int, stop: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
        """Row and input of the flat elements start..stop-1."""
        flat = torch.arange(start, stop, device=device)
        flat, j = flat // self.inner, flat % self.inner
        flat, c = flat // self.channels, flat % self.channels
        return flat // self.outer * self.channels + c, flat % self.outer * self.inner + j


def layout(shape: Sequence[int], *, axis: int = 0, blocks: int = 1) -> Layout:
    """The layout of a tensor whose output channels lie on `axis`; `blocks` splits the axis before it.

    >>> layout((4, 3, 2, 2))
    Layout(blocks=1, outer=1, channels=4, inner=12)
    >>> layout((6, 5, 2, 2), axis=1, blocks=2)
    Layout(blocks=2, outer=3, channels=5, inner=4)
    """
    outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    if outer % blocks:
        raise ValueError(f"{blocks} blocks do not divide the {outer} inputs of a tensor of shape {tuple(shape)}")
    return Layout(blocks, outer // blocks, shape[axis], inner)


@dataclass(frozen=True)
class Grid:
    """A format with its scales: `scale` and `zero` are float32 `[rows, groups]`, `zero` is None on symmetric grids."""

    format: Format
    layout: Layout
    group: int
    scale: Tensor
    zero: Tensor | None = None

    def spread(self, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """Scale and zero point of the flat elements start..stop-1."""
        if self.scale.numel() == 1:
            return self.scale.flatten(), None if self.zero is None else self.zero.flatten()
        if self.layout.outer == 1:  # rows lie end to end, and so do groups
            at = torch.arange(start, stop, device=self.scale.device) // self.group
        else:
            row, j = self.layout.place(start, stop, self.scale.device)
            at = row * self.scale.shape[1] + j // self.group
        return self.scale.flatten()[at], None if self.zero is None else self.zero.flatten()[at]

    def to(self, device: torch.device | None) -> Grid:
        zero = None if self.zero is None else self.zero.to(device)
        return replace(self, scale=self.scale.to(device), zero=zero)

    def bits(self) -> int:
        """Bits of the scales (32 each) and zero points (8 each); 16-bit formats have none."""
        if self.format.bits == 16:
            return 0
        return self.scale.numel() * (32 if self.zero is None else 40)


def fit_grid(tensor: Tensor, format: Format, *, granularity: Granularity = "channel", layout: Layout) -> Grid:
    """The grid of absolute maxima (minima and maxima, if asymmetric) over each group of `tensor`, in float32.

    Raises ValueError where the group size does not divide the inputs, or the tensor holds NaN or Inf.
    """
    if granularity == "tensor":
        layout = Layout(1, 1, 1, layout.numel)
    group = layout.inputs if isinstance(granularity, str) else granularity
    if group < 1 or layout.inputs % group:
        raise ValueError(f"groups of {group} do not divide the {layout.inputs} inputs of each output channel")
    parts = layout.to_rows(tensor.detach()).reshape(layout.rows, -1, group)
    low, high = (end.to(torch.float32) for end in torch.aminmax(parts, dim=-1))
    if not bool(torch.isfinite(low).all() and torch.isfinite(high).all()):
        raise ValueError("NaN or Inf among the weights; a grid cannot be fitted")
    scale, zero = format.scale(low, high)
    return Grid(format, layout, group, scale, zero)
