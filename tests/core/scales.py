"""Which weights feed which output, asked of autograd, against the scales a grid has."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pluria.core.model import Role
from pluria.numbers.format import number_format
from pluria.numbers.grid import fit_grid

FORMAT = number_format("int4")
TOP = 7


def scales(value: Tensor, role: Role) -> Tensor:
    """The scale of each output channel under this role."""
    return fit_grid(value, FORMAT, layout=role.layout(value.shape)).scale.flatten()


def feeding(weight: Tensor, outputs: Callable[[], Tensor]) -> list[Tensor]:
    """For each output channel (axis 1 of `outputs`), the weights with a gradient from it."""
    masks = []
    for channel in range(outputs().shape[1]):
        (gradient,) = torch.autograd.grad(outputs()[:, channel].sum(), weight)
        masks.append(gradient != 0)
    return masks


def check_scales(weight: nn.Parameter, role: Role, outputs: Callable[[], Tensor]) -> None:
    """Each scale is the absolute maximum over exactly the weights that feed its output, over the grid's top."""
    masks = feeding(weight, outputs)
    wanted = torch.stack([weight.detach().abs()[mask].max() / TOP for mask in masks])
    torch.testing.assert_close(scales(weight, role), wanted)
    for channel, mask in enumerate(masks):
        louder = torch.where(mask, 3 * weight.detach(), weight.detach())
        changed = scales(louder, role) != scales(weight, role)
        assert changed.nonzero().flatten().tolist() == [channel]
