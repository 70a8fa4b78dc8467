"""What bounds eight members: eight products in 16 or 8 bits over one in float32, nothing else around them.

    python -m benchmarks.products [--repeats 15]

The products of the encoder's layers at 1,024 tokens, and the convolutions of ResNet-20 on 256 images. All take turns.
Where the ratio is above two, eight members by that back end take more than two passes of a network that consists of
such products, whatever is done about the rest.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import nn

from benchmarks.sides import Ratio, keep, ratio, turns
from pluria.predict import whole_images

MEMBERS = 8
LINEAR = ((768, 768), (768, 3072), (3072, 768))
CONVOLUTIONS = ((16, 16, 32), (32, 32, 16), (64, 64, 8))
Ways = dict[str, Callable[[], object]]


def linear(inputs: int, outputs: int) -> Ways:
    """One layer on 1,024 rows."""
    x, weight = torch.randn(1024, inputs), torch.randn(outputs, inputs)
    half, halves = x.bfloat16(), weight.bfloat16()
    whole, codes = (torch.randint(-7, 8, each.shape, dtype=torch.int8) for each in (x, weight))
    return {
        "float32": lambda: F.linear(x, weight),
        "bfloat16": lambda: F.linear(half, halves),
        "int8": lambda: torch._int_mm(whole, codes.t()),
    }


def convolution(inputs: int, outputs: int, size: int) -> Ways:
    """One layer on 256 images, in each way's own memory order."""
    last = torch.channels_last
    x, layer = torch.randn(256, inputs, size, size), nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    half, halves = x.bfloat16().to(memory_format=last), layer.weight.detach().bfloat16().to(memory_format=last)
    ways: Ways = {
        "float32": lambda: layer(x),
        "bfloat16": lambda: F.conv2d(half, halves, padding=1),
    }
    if whole_images.exact():
        whole = torch.randint(0, 256, x.shape, dtype=torch.uint8).to(memory_format=last)
        made = whole_images.WholeImages(copy.deepcopy(layer).bfloat16())
        made.layer.weight.random_(-7, 8)
        ways["int8"] = lambda: made._product(whole, 0)
    return ways


def main(repeats: Annotated[int, typer.Option(help="Turns of every way.")] = 15) -> None:
    """Measure what products alone take."""
    ratios: list[Ratio] = []
    cases = [(f"linear {i} to {o}, 1,024 rows", linear(i, o)) for i, o in LINEAR]
    cases += [
        (f"convolution {i} to {o}, 256 images of {size} x {size}", convolution(i, o, size))
        for i, o, size in CONVOLUTIONS
    ]
    for what, ways in cases:
        with torch.inference_mode():
            seconds = turns(ways, repeats)
        ratios += [
            ratio(
                f"{what}: {MEMBERS} products in {way} / one in float32", seconds[way], seconds["float32"], scale=MEMBERS
            )
            for way in ways
            if way != "float32"
        ]
    keep("products", ratios)


if __name__ == "__main__":
    typer.run(main)
