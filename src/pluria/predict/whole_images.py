"""Convolutions as int8 products: codes times activations that are rounded to eight bits, image by image, as they come.

    q = round(255 x / max x)  for each image, 128 + round(127 x / max |x|) where it has negative numbers
    y = step_n scale_c (q * codes_c) + shift_c

Sums are exact, in 32 bits, and rounded to bfloat16 before scale and shift. The products are oneDNN's, by the operators
of torch that quantised networks run on; whether they are there, and exact on this machine, is tried once.
"""

from __future__ import annotations

from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pluria.numbers.threads import share
from pluria.predict.scaled import Scaled

Floats = NDArray[np.float32]

MIDDLE = 128
"""What is added to the bytes of images that have negative numbers."""


class WholeImages(Scaled):
    """A convolution with int8 codes for weights, on bfloat16 images."""

    layer: nn.Conv2d

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        from pluria.numbers import activations  # imports Numba, which only this way of running needs

        self.loops: ModuleType = activations
        self.least = np.float32(-np.inf)
        self.points = torch.zeros(len(self.ones), dtype=torch.int64)
        self.packed: dict[int, Tensor] = {}
        self.tables: list[Floats] = []
        layer.weight = nn.Parameter(torch.empty(layer.weight.shape, dtype=torch.int8), requires_grad=False)

    def renew(self) -> None:
        """Forget what was made of the member before."""
        self.packed.clear()
        self.tables.clear()

    def cut(self) -> bool:
        """Give nothing below zero."""
        self.least = np.float32(0)
        return True

    def forward(self, x: Tensor) -> Tensor:
        if not len(x):
            return _of_nothing(self.layer, x)
        whole, steps, signed = self._bytes(x.contiguous(memory_format=torch.channels_last))
        if signed.all() or not signed.any():
            y = self._product(whole, MIDDLE * int(signed[0]))
        else:
            y = self._of_both(whole, torch.from_numpy(signed))
        return self._spread_images(y, steps)

    def _bytes(self, x: Tensor) -> tuple[Tensor, Floats, NDArray[np.uint8]]:
        """Bytes in the order of x, the step of each image, and which of them have negative numbers."""
        whole = torch.empty_like(x, dtype=torch.uint8)
        steps, signed = np.empty(len(x), np.float32), np.empty(len(x), np.uint8)
        _share(self.loops.quantise_images, (_flat(whole), steps, signed, _patterns(x)), x)
        return whole, steps, signed

    def _product(self, whole: Tensor, middle: int) -> Tensor:
        """Sums of codes times bytes less `middle`, bfloat16, channels last."""
        if middle not in self.packed:
            self.packed[middle] = _packed(self.layer, self.ones, middle, whole.shape)
        return _multiplied(self.layer, whole, self.packed[middle], self.ones, self.points, middle, torch.bfloat16)

    def _of_both(self, whole: Tensor, signed: Tensor) -> Tensor:
        """The same where some images have negative numbers and some have none."""
        rows = [torch.nonzero(signed == sign).flatten() for sign in (0, 1)]
        y = torch.cat([self._product(_some(whole, own), MIDDLE * sign) for sign, own in enumerate(rows)])
        return _some(y, torch.cat(rows).argsort())

    def _spread_images(self, y: Tensor, steps: Floats) -> Tensor:
        """step scale y + shift, or the least that is given, in place."""
        if not self.tables:
            often = max(1, self.loops.PART // y.shape[1])
            self.tables += [table.repeat(often).numpy() for table in (self.scale, self.shift)]
        y = y.contiguous(memory_format=torch.channels_last)
        _share(self.loops.spread_images, (_patterns(y), steps, *self.tables, self.least), y)
        return y


def serves(layer: nn.Module) -> bool:
    """Whether a layer in bfloat16 can run as int8 products of images."""
    plain = type(layer) is nn.Conv2d and layer.weight.dtype == torch.bfloat16 and layer.weight.device.type == "cpu"
    return plain and layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and exact()


@lru_cache(maxsize=1)
def exact() -> bool:
    """Whether this machine multiplies bytes and int8 exactly, by operators that torch may not have.

    Processors without instructions for it add pairs of products in 16 bits, which the largest numbers overflow.
    """
    layer = nn.Conv2d(16, 16, 3, bias=False, device="meta")
    codes = torch.full(layer.weight.shape, 127, dtype=torch.int8)
    layer.weight = nn.Parameter(codes, requires_grad=False)
    x, ones = torch.full((1, 16, 5, 5), 255, dtype=torch.uint8), torch.ones(16)
    x = x.contiguous(memory_format=torch.channels_last)
    try:
        packed = _packed(layer, ones, 0, x.shape)
        found = _multiplied(layer, x, packed, ones, torch.zeros(16, dtype=torch.int64), 0, torch.float32)
    except Exception:  # whatever a torch without these operators, or with other ones of that name, says
        return False
    return torch.equal(found, F.conv2d(x.float(), codes.float()))


def _packed(layer: nn.Conv2d, ones: Tensor, middle: int, shape: torch.Size) -> Tensor:
    """Codes as oneDNN wants to have them."""
    place = layer.stride, layer.padding, layer.dilation, layer.groups
    made: Tensor = torch.ops.onednn.qconv_prepack(layer.weight, ones, 1.0, middle, *place, shape)
    return made


def _multiplied(
    layer: nn.Conv2d, x: Tensor, packed: Tensor, ones: Tensor, zeros: Tensor, middle: int, dtype: torch.dtype
) -> Tensor:
    place = layer.stride, layer.padding, layer.dilation, layer.groups
    made: Tensor = torch.ops.onednn.qconv2d_pointwise(
        x, 1.0, middle, packed, ones, zeros, None, *place, 1.0, 0, dtype, "none", [], ""
    )
    return made


def _of_nothing(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """What comes of no images."""
    assert not isinstance(layer.padding, str)
    return F.conv2d(x, layer.weight.to(x.dtype), None, layer.stride, layer.padding, layer.dilation, layer.groups)


def _some(images: Tensor, rows: Tensor) -> Tensor:
    return images[rows].contiguous(memory_format=torch.channels_last)


def _flat(images: Tensor) -> Any:
    """`[N, P]` of images whose channels lie last."""
    return images.permute(0, 2, 3, 1).view(len(images), -1).numpy()


def _patterns(images: Tensor) -> Any:
    return _flat(images.view(torch.int16)).view(np.uint16)


def _share(loop: Any, held: tuple[Any, ...], images: Tensor) -> None:
    """Run a loop over images on all threads."""
    size = images[0].numel()
    each = -(-len(images) // torch.get_num_threads())  # one piece for each: handing out more takes as long as a piece
    share(lambda start, stop: loop(*held, start // size, stop // size), images.numel(), each * size)
