"""Linear layers as int8 products: codes times activations that are rounded to eight bits, row by row, as they come.

    q = round(127 x / max |x|)  for each row        y = scale_c (max |x| / 127) (q . codes_c) + shift_c

Sums are exact, in 32 bits. What is lost is in the activations, up to 0.4 % of each row's largest value; so whoever
wants it asks for it. Runs where Numba is, on a CPU.
Source: Dettmers et al., "LLM.int8()", NeurIPS 2022, section 2 (vector-wise quantisation), without its outlier columns.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pluria.core.coded import Coded
from pluria.core.family import Family, Joined
from pluria.core.rounded import Rounded
from pluria.numbers.format import Integer
from pluria.predict import whole_images
from pluria.predict.images import images, loops
from pluria.predict.scaled import Scaled
from pluria.predict.whole_images import WholeImages, check_dtype

CHUNK = 512
"""Rows at a time, so that sums stay in the cache."""


class Whole(Scaled):
    """A linear layer with int8 codes for weights, on bfloat16 activations."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer)
        layer.weight = nn.Parameter(torch.empty_like(layer.weight, dtype=torch.int8), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        check_dtype(x)
        flat = x.reshape(-1, x.shape[-1]).contiguous()
        out = torch.empty(len(flat), len(self.scale), dtype=torch.bfloat16)
        for start in range(0, len(flat), CHUNK):
            self._product(flat[start : start + CHUNK], out[start : start + CHUNK])
        return out.view(*x.shape[:-1], out.shape[1])

    def _product(self, x: Tensor, out: Tensor) -> None:
        whole, steps = torch.empty(x.shape, dtype=torch.int8), torch.empty(len(x))
        q, s = whole.numpy(), steps.numpy()
        # In this thread alone: a chunk is too small to wake another for.
        loops().quantise(q, s, _halves(x), 0, len(x))
        sums = torch._int_mm(whole, self.layer.weight.t()).numpy()
        scale, shift, halves = self.scale.numpy(), self.shift.numpy(), _halves(out)
        loops().spread_sums(halves, sums, s, scale, shift, 0, len(x))


def whole(layer: nn.Module, family: Family) -> Scaled:
    """The layer as int8 products where it can be one."""
    if not fits(family):
        return images(layer, family)
    if type(layer) is nn.Linear and layer.weight.dtype == torch.bfloat16 and layer.weight.device.type == "cpu":
        return Whole(layer)
    return WholeImages(layer) if whole_images.serves(layer) else images(layer, family)  # type: ignore[arg-type]


def fits(family: Family) -> bool:
    """Whether all members' codes are whole numbers within -127..127."""
    if isinstance(family, Joined):
        return all(map(fits, family.parts))
    form = family.grid(0).format if isinstance(family, Rounded | Coded) else None
    return isinstance(form, Integer) and form.symmetric


def _halves(x: Tensor) -> Any:
    return x.view(torch.int16).numpy().view(np.uint16)
