"""Convolutions as int8 products: codes times activations that are rounded to eight bits, image by image, as they come.

    q = round(255 x / max x)  for each image, 128 + round(127 x / max |x|) where it has negative numbers
    y = step_n scale_c (q * codes_c) + shift_c

Sums are exact, in 32 bits, and rounded to bfloat16 before scale and shift. One step stands for all of an image: what is
lost is up to 0.2 % of its largest activation, 0.4 % where there are negative ones. The products are oneDNN's, by the
operators of torch that quantised networks run on; whether they are there, and exact on this machine, is tried once.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pluria.predict.images import Floats, Images, flat, is_of_images, loops, over_images, patterns, place

LOG = logging.getLogger("pluria.predict")
MIDDLE = 128
"""What is added to the bytes of images that have negative numbers."""

MOST = 2**16
"""Products that 32 bits can add up, of bytes and int8."""


class WholeImages(Images):
    """A convolution with int8 codes for weights, on bfloat16 images."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.points = torch.zeros_like(self.ones, dtype=torch.int64)
        self.packed: dict[tuple[int, torch.Size], Tensor] = {}
        # In the order that codes are written in, whatever that of the layer is.
        codes = torch.empty_like(layer.weight, dtype=torch.int8, memory_format=torch.contiguous_format)
        layer.weight = nn.Parameter(codes, requires_grad=False)

    def renew(self) -> None:
        self.packed.clear()

    def raw(self, x: Tensor) -> tuple[Tensor, Floats]:
        check_dtype(x)
        whole, steps, signed = _bytes(x.contiguous(memory_format=torch.channels_last))
        if signed.all() or not signed.any():
            return self._product(whole, MIDDLE * int(signed[0])), steps
        return self._of_both(whole, torch.from_numpy(signed)), steps

    def _product(self, whole: Tensor, middle: int) -> Tensor:
        """Sums of codes times bytes less `middle`, bfloat16, channels last."""
        kind, where = (middle, whole.shape[1:]), place(self.layer)
        if kind not in self.packed:
            self.packed[kind] = torch.ops.onednn.qconv_prepack(
                self.layer.weight, self.ones, 1.0, middle, *where, whole.shape
            )
        last: Any = (1.0, 0, torch.bfloat16, "none", [], "")
        made: Tensor = torch.ops.onednn.qconv2d_pointwise(
            whole, 1.0, middle, self.packed[kind], self.ones, self.points, None, *where, *last
        )
        return made

    def _of_both(self, whole: Tensor, signed: Tensor) -> Tensor:
        """The same where some images have negative numbers and some have none."""
        rows = [torch.nonzero(signed == sign).flatten() for sign in (0, 1)]
        y = torch.cat([self._product(_some(whole, own), MIDDLE * sign) for sign, own in enumerate(rows)])
        return _some(y, torch.cat(rows).argsort())


def serves(layer: nn.Module) -> bool:
    """Whether a layer in bfloat16 can run as int8 products of images."""
    if not is_of_images(layer):
        return False
    weight: Tensor = layer.weight  # type: ignore[assignment]
    plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return plain and weight[0].numel() <= MOST and exact()


@lru_cache(maxsize=1)
def exact() -> bool:
    """Whether this machine multiplies bytes and int8 exactly, by operators that torch may not have.

    Processors without instructions for it add pairs of products in 16 bits, which the largest numbers overflow.
    """
    try:
        found = all(_is_exact(middle, groups) for middle in (0, MIDDLE) for groups in (1, 2, 16))
    except Exception as problem:  # whatever a torch without these operators, or with other ones of that name, says
        LOG.info("int8 leaves convolutions in bfloat16: %s", problem)
        return False
    if not found:
        LOG.info("int8 leaves convolutions in bfloat16: products of bytes and int8 are not exact on this processor")
    return found


def _is_exact(middle: int, groups: int) -> bool:
    """By the largest numbers there are."""
    plain = nn.Conv2d(16, 16, 3, padding=1, groups=groups, bias=False, dtype=torch.bfloat16, device="meta")
    layer = WholeImages(plain.to_empty(device="cpu"))  # which draws no random numbers
    codes = layer.layer.weight.fill_(127)
    codes[::2].neg_()
    x = torch.full((2, 16, 5, 5), 255, dtype=torch.uint8, device="cpu").contiguous(memory_format=torch.channels_last)
    wanted = F.conv2d(x.float() - middle, codes.float(), None, *place(layer.layer))
    return torch.equal(layer._product(x, middle), wanted.bfloat16())


def check_dtype(x: Tensor) -> None:
    """Raise TypeError for activations that are not bfloat16."""
    if x.dtype != torch.bfloat16:
        raise TypeError(f"int8 products take activations in bfloat16; the network hands {x.dtype} to one of its layers")


def _bytes(x: Tensor) -> tuple[Tensor, Floats, NDArray[np.uint8]]:
    """Bytes in the order of x, the step of each image, and which of them have negative numbers."""
    whole = torch.empty_like(x, dtype=torch.uint8)
    steps, signed = np.empty(len(x), np.float32), np.empty(len(x), np.uint8)
    over_images(loops().quantise_images, (flat(whole), steps, signed, patterns(x)), x)
    return whole, steps, signed


def _some(images: Tensor, rows: Tensor) -> Tensor:
    return images[rows].contiguous(memory_format=torch.channels_last)
