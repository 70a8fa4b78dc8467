"""Label-preserving views of images for test-time augmentation: the flip and shifts by one pixel.

    left(x)[n, c, i, j] = x[n, c, i, min(j + 1, W - 1)]

A shift repeats the edge pixels. A zero border would mean black before normalisation and grey after it; edge pixels
mean the same on both sides, so views commute with the normalisation. Every view is a pure, picklable function
`[N, C, H, W] -> [N, C, H, W]`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from pluria.zoo.lookup import choose

View = Callable[[Tensor], Tensor]


def view(name: str) -> View:
    """The view of that name; `+` chains views from left to right: `view("flip+left")`.

    ValueError with the nearest name for an unknown one.

    >>> view("left")(torch.tensor([[[[1, 2, 3]]]])).tolist()
    [[[[2, 3, 3]]]]
    """
    chain = tuple(choose(VIEWS, part, what="view") for part in name.split("+"))
    return chain[0] if len(chain) == 1 else Chain(chain)


def identity(images: Tensor) -> Tensor:
    """The images themselves."""
    return images


def flip(images: Tensor) -> Tensor:
    """Left and right exchanged."""
    return images.flip(-1)


def shift(images: Tensor, *, down: int, right: int) -> Tensor:
    """Content moved by whole pixels; the edge pixels fill what is uncovered. Negative numbers move up and left."""
    height, width = images.shape[-2:]
    rows = (torch.arange(height, device=images.device) - down).clamp(0, height - 1)
    columns = (torch.arange(width, device=images.device) - right).clamp(0, width - 1)
    return images.index_select(-2, rows).index_select(-1, columns)


@dataclass(frozen=True)
class Chain:
    """Views one after the other."""

    parts: tuple[View, ...]

    def __call__(self, images: Tensor) -> Tensor:
        for part in self.parts:
            images = part(images)
        return images


VIEWS: Mapping[str, View] = {
    "identity": identity,
    "flip": flip,
    "left": partial(shift, down=0, right=-1),
    "right": partial(shift, down=0, right=1),
    "up": partial(shift, down=-1, right=0),
    "down": partial(shift, down=1, right=0),
    "up-left": partial(shift, down=-1, right=-1),
    "up-right": partial(shift, down=-1, right=1),
    "down-left": partial(shift, down=1, right=-1),
    "down-right": partial(shift, down=1, right=1),
}
