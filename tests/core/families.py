"""One of each family, on a tensor of shape [4, 3, 2, 2], and the members that tests ask for."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pluria.core.coded import pack_members, pack_planes
from pluria.core.factored import Factored
from pluria.core.family import Affine, Family, Joined, Shared, Stacked
from pluria.core.gaussian import Gaussian
from pluria.core.masked import masked
from pluria.core.rounded import Rounded
from pluria.numbers.format import number_format
from pluria.numbers.grid import layout
from pluria.numbers.key import Key

SHAPE = (4, 3, 2, 2)
NAME = "conv.weight"


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rounded(
    base: Family | None = None, *, format: str = "int5", coupling: str | None = "stratified", **options: object
) -> Rounded:
    """Rounded with one scale for each output channel, unless told otherwise."""
    given = {"granularity": "channel", "layout": layout(SHAPE), "key": Key(3), **options}
    return Rounded(base or Shared(normal(*SHAPE)), NAME, number_format(format), coupling=coupling, **given)


def stacked(rows: int = 5) -> Stacked:
    return Stacked(normal(rows, *SHAPE, seed=1))


def gaussian(*, factors: bool = True) -> Gaussian:
    spread = normal(*SHAPE, seed=2).abs()
    return Gaussian(Shared(normal(*SHAPE)), spread, NAME, Key(4), normal(2, *SHAPE, seed=5) if factors else None)


def affine() -> Affine:
    coordinates = normal(6, 2, seed=6).to(torch.float64)
    return Affine(normal(*SHAPE), normal(2, *SHAPE, seed=7), coordinates)


def joined() -> Joined:
    parts = (stacked(), Stacked(normal(3, *SHAPE, seed=8), index=(7, 2, 4)), rounded(), Shared(normal(*SHAPE, seed=9)))
    return Joined(parts, ((4, 0), (7, 2, 4), (9, 9), (0, 3)))


MAKERS: dict[str, tuple[Callable[[], Family], tuple[int, ...]]] = {
    "shared": (lambda: Shared(normal(*SHAPE)), (0, 5, 3)),
    "shared, channels last": (
        lambda: Shared(normal(*SHAPE).to(memory_format=torch.channels_last)),
        (0, 2),
    ),
    "shared integer": (lambda: Shared(torch.tensor(17)), (0, 1)),
    "shared bool": (lambda: Shared(torch.tensor([[True, False]])), (0, 1)),
    "stacked": (stacked, (4, 0, 2)),
    "stacked bfloat16": (lambda: Stacked(normal(3, *SHAPE, seed=1).bfloat16()), (2, 0, 1)),
    "stacked, indexed": (lambda: Stacked(normal(3, *SHAPE, seed=8), index=(7, 2, 4)), (4, 7, 2)),
    "stacked integers": (lambda: Stacked(torch.arange(5)), (3, 1, 4)),
    "affine": (affine, (5, 0, 2)),
    "joined": (joined, (8, 0, 3, 5, 6, 1)),
    "rounded": (rounded, (0, 7, 3, 1000)),
    "rounded independent": (lambda: rounded(coupling="independent"), (0, 7, 3, 1000)),
    "rounded antithetic": (lambda: rounded(coupling="antithetic"), (1, 0, 7, 6)),
    "rounded nearest": (lambda: rounded(coupling=None), (0, 7, 3)),
    "rounded asymmetric": (lambda: rounded(format="int4-asymmetric"), (0, 7, 3)),
    "rounded fp8": (lambda: rounded(format="fp8-e4m3"), (0, 7, 3)),
    "rounded nf4, groups": (lambda: rounded(format="nf4", granularity=6), (0, 7, 3)),
    "rounded, two bases": (lambda: rounded(stacked(), bases=(3, 1)), (0, 1, 6, 7)),
    "rounded, transposed": (lambda: rounded(layout=layout(SHAPE, axis=1, blocks=2)), (0, 7)),
    "rounded, channels last": (
        lambda: rounded(Shared(normal(*SHAPE).to(memory_format=torch.channels_last))),
        (0, 7),
    ),
    "rounded bfloat16": (lambda: rounded(Shared(normal(*SHAPE).bfloat16())), (0, 7)),
    "rounded over gaussian": (lambda: rounded(gaussian(), bases=(2, 5, 0)), (0, 1, 4, 5)),
    "rounded over joined": (lambda: rounded(joined(), bases=(8, 1)), (0, 1, 2, 3)),
    "coded, own codes": (lambda: pack_members(rounded(), (4, 0, 9)), (2, 0, 1)),
    "coded, own grids": (lambda: pack_members(rounded(stacked(), bases=(3, 1)), (0, 1, 2)), (2, 0, 1)),
    "coded, planes": (lambda: pack_planes(rounded(), (4, 0, 9)), (2, 0, 1)),
    "masked": (lambda: masked(Shared(normal(*SHAPE)), normal(3, *SHAPE, seed=4) > 0), (2, 0, 1)),
    "masked, own bases": (lambda: masked(stacked(), normal(3, *SHAPE, seed=4) > 0), (2, 0, 1)),
    "factored, added": (lambda: Factored(Shared(normal(*SHAPE)), normal(3, 4, 2), normal(3, 2, 12), "add"), (2, 0, 1)),
    "factored, multiplied": (
        lambda: Factored(rounded(), normal(3, 4, 1), normal(3, 1, 3), "multiply"),
        (2, 0, 1),
    ),
    "gaussian": (lambda: gaussian(factors=False), (0, 7, 3)),
    "gaussian, factors": (gaussian, (0, 7, 3)),
}
