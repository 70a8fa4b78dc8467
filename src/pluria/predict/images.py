"""Convolutions of images in bfloat16 whose last pass over memory does all that stands behind them.

    y = scale_c (x * codes_c) + shift_c + what a sum adds, or 0 where that is less and a ReLU cuts it

in float32, from products in bfloat16, and rounded once. Batch norms go into scale and shift; sums and ReLUs come by
`endings.py`.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from pluria.core.family import Family
from pluria.numbers.threads import share
from pluria.predict.endings import Endings
from pluria.predict.fold import Ending
from pluria.predict.scaled import Scaled

Floats = NDArray[np.float32]
NOTHING = np.empty((0, 0), np.uint16)
"""What is added to images where nothing is."""


class Images(Scaled):
    """A 2-d convolution with exact codes for weights, on bfloat16 images on a CPU."""

    layer: nn.Conv2d

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer)
        self.endings: Endings | None = None
        self.ending: Ending = ()
        self.tables: tuple[Floats, Floats] | None = None

    def spread_by(self, scale: Tensor, shift: Tensor) -> None:
        super().spread_by(scale, shift)
        self.tables = None

    def wait(self, ending: Ending, endings: Endings) -> None:
        self.ending, self.endings = ending, endings
        endings.expected |= bool(ending)

    def forward(self, x: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():  # to look out for endings takes a microsecond a call
            if self.endings is not None:
                self.endings.read(x)
            alone = x.ndim == 3
            if not x.numel():
                return F.conv2d(x, self.layer.weight.to(x.dtype), None, *place(self.layer))
            y, steps = self.raw(x.unsqueeze(0) if alone else x)
            if y.dtype != torch.bfloat16:  # as autocast may have it
                y = self._spread(y)
                return y.squeeze(0) if alone else y
            y = y.contiguous(memory_format=torch.channels_last)
            if self.endings is not None and self.ending and not alone:
                return self.endings.put_off(y, self.ending, partial(self._finish, y, steps))
            self._finish(y, steps, None, False)
            return y.squeeze(0) if alone else y

    def raw(self, x: Tensor) -> tuple[Tensor, Floats]:
        """What comes before scale and shift, and what each image is multiplied by."""
        y: Tensor = self.layer(x)
        return y, ones(x.shape[0])

    def _finish(self, y: Tensor, steps: Floats, other: Tensor | None, cut: bool) -> None:
        """step scale y + shift + other, or 0 where that is less and to be cut, in place."""
        if self.tables is None:
            often = max(1, loops().PART // y.shape[1])
            self.tables = self.scale.repeat(often).numpy(), self.shift.repeat(often).numpy()
        added = NOTHING if other is None else patterns(other.contiguous(memory_format=torch.channels_last))
        least = np.float32(0 if cut else -np.inf)
        over_images(loops().spread_images, (patterns(y), steps, *self.tables, added, least), y)


def images(layer: nn.Module, family: Family) -> Scaled:
    """The layer as one of images where it can be one."""
    return Images(layer) if is_of_images(layer) else Scaled(layer)  # type: ignore[arg-type]


def is_of_images(layer: nn.Module) -> bool:
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


def over_images(loop: Any, held: tuple[Any, ...], images: Tensor) -> None:
    """Run a loop over images on all threads, in as many pieces: to hand out more takes as long as a piece."""
    count, total = images.shape[0], images.numel()
    size, each = total // count, -(-count // torch.get_num_threads())
    share(lambda start, stop: loop(*held, start // size, stop // size), total, each * size)


@lru_cache(maxsize=8)
def ones(count: int) -> Floats:
    """As many, to be read alone."""
    return np.ones(count, np.float32)


@lru_cache(maxsize=1)
def loops() -> Any:
    """Compiled loops before and behind products, of images and of rows."""
    from pluria.numbers import activations  # imports Numba, which other ways of running do without

    return activations
