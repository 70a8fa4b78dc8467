"""Convolutions of images in bfloat16 whose last pass over memory does all that stands behind them.

    y = scale_c (x * codes_c) + shift_c      then + what a sum adds, then 0 where that is negative

in float32, rounded once. Batch norms go into scale and shift; sums and ReLUs where the network's graph shows them.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pluria.core.family import Family
from pluria.numbers.threads import share
from pluria.predict.scaled import Scaled
from pluria.predict.sums import Sums

Floats = NDArray[np.float32]
NONE = np.empty((0, 0), np.uint16)
"""What is added to images where nothing is."""


class Images(Scaled):
    """A 2-d convolution with exact codes for weights, on bfloat16 images on a CPU."""

    layer: nn.Conv2d

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.least = np.float32(-np.inf)
        self.sums: Sums | None = None
        self.tables: tuple[Floats, Floats] | None = None

    def renew(self) -> None:
        self.tables = None

    def cut(self) -> bool:
        self.least = np.float32(0)
        return True

    def wait(self, sums: Sums) -> bool:
        self.sums, sums.expected = sums, True
        return True

    def forward(self, x: Tensor) -> Tensor:
        shape = x.shape
        if 0 in shape:
            return F.conv2d(x, self.layer.weight.to(x.dtype), None, *place(self.layer))
        with torch._C.DisableTorchFunction():  # to look out for sums takes a microsecond a call
            alone = len(shape) == 3
            y, steps = self.raw(x.unsqueeze(0) if alone else x)
            y = y.contiguous(memory_format=torch.channels_last)

            def finish(other: Any) -> Tensor:
                made = self._finish(y, steps, other.unsqueeze(0) if alone and isinstance(other, Tensor) else other)
                return made.squeeze(0) if alone else made

            if self.sums is None:
                return finish(None)
            return self.sums.put_off(y.squeeze(0) if alone else y, finish)

    def raw(self, x: Tensor) -> tuple[Tensor, Floats]:
        """What comes before scale and shift, and what each image is multiplied by."""
        y: Tensor = self.layer(x)
        return y, np.ones(len(x), np.float32)

    def _finish(self, y: Tensor, steps: Floats, other: Any) -> Tensor:
        """step scale y + shift + other, or the least that is given, in place where `other` is like y."""
        if self.tables is None:
            often = max(1, loops().PART // y.shape[1])
            self.tables = self.scale.repeat(often).numpy(), self.shift.repeat(often).numpy()
        like = isinstance(other, Tensor) and (other.dtype, other.shape) == (y.dtype, y.shape)
        more = patterns(other.contiguous(memory_format=torch.channels_last)) if like else NONE
        least = self.least if like or other is None else np.float32(-np.inf)
        shared(loops().spread_images, (patterns(y), steps, *self.tables, more, least), y)
        if like or other is None:
            return y
        y = y + other
        return y.clamp_min_(0) if self.least == 0 else y


def images(layer: nn.Module, family: Family) -> Scaled:
    """The layer as one of images where it can be one."""
    return Images(layer) if of_images(layer) else Scaled(layer)  # type: ignore[arg-type]


def of_images(layer: nn.Module) -> bool:
    """Whether a layer is a convolution of images in bfloat16 on a CPU."""
    return type(layer) is nn.Conv2d and layer.weight.dtype == torch.bfloat16 and layer.weight.device.type == "cpu"


def place(layer: nn.Conv2d) -> Any:
    """Where a convolution looks, as torch's functions take it."""
    return layer.stride, layer.padding, layer.dilation, layer.groups


def flat(images: Tensor) -> Any:
    """`[N, P]` of images whose channels lie last."""
    return images.permute(0, 2, 3, 1).numpy().reshape(images.shape[0], -1)


def patterns(images: Tensor) -> Any:
    """The same as bit patterns, of bfloat16."""
    return flat(images.view(torch.uint16))


def shared(loop: Any, held: tuple[Any, ...], images: Tensor) -> None:
    """Run a loop over images on all threads, in as many pieces: to hand out more takes as long as a piece."""
    count, total = images.shape[0], images.numel()
    size, each = total // count, -(-count // torch.get_num_threads())
    share(lambda start, stop: loop(*held, start // size, stop // size), total, each * size)


@lru_cache(maxsize=1)
def loops() -> Any:
    """Compiled loops before and behind products, of images and of rows."""
    from pluria.numbers import activations  # imports Numba, which no other way of running needs

    return activations
