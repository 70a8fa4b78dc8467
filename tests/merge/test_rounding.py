"""One rounding from float64 to 16 bits, in every place where a merge makes numbers of 16 bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from pluria import Merge, merge_files, stack
from pluria.core.adapter import LowRank
from pluria.core.ensemble import Ensemble
from pluria.core.factored import Factored
from pluria.core.family import Affine, Shared
from pluria.merge import (
    add_adapters,
    amortised,
    fisher,
    leafwise,
    linear,
    merge_experts,
    mix,
    regmean,
    task_arithmetic,
    trimmed,
    wise_ft,
)
from pluria.merge.adding import adding

HALF = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}
"""Half of the step above one: one and that, and a little more, is rounded up; float32 loses the little at 2^-40."""


def above(dtype: torch.dtype) -> tuple[float, float]:
    """How far a midpoint and a little more are from one, and the right answer."""
    return HALF[dtype] + 2.0**-40, 1 + 2 * HALF[dtype]


def members(dtype: torch.dtype) -> Ensemble:
    """Two of float32 whose mean lies a little above a midpoint of `dtype`."""
    return stack([{"w": torch.tensor([[1 + 2 * HALF[dtype] + 2.0**-23]])}, {"w": torch.ones(1, 1)}])


def four(dtype: torch.dtype) -> Ensemble:
    """Four of 16 bits, of the same kind."""
    values = (4.0, 4 * HALF[dtype], 2.0 ** (-40 if dtype == torch.bfloat16 else -24), 0.0)
    return stack([{"w": torch.tensor([[value]], dtype=dtype)} for value in values])


def added(dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, LowRank]]:
    """A base of ones, and an adapter that brings it a little above a midpoint."""
    step = torch.tensor([[above(dtype)[0] / 2]], dtype=torch.float64)
    return {"w": torch.ones(1, 1, dtype=dtype)}, {"w": LowRank(torch.tensor([[2.0]]), step)}


def factored(dtype: torch.dtype) -> Tensor:
    [(_, part)] = added(dtype)[1].items()
    family = Factored(Shared(torch.ones(1, 1, dtype=dtype)), part.left[None], part.right[None], "add")
    out = torch.empty(1, 1, dtype=dtype)
    family.write(0, out)
    return out


def affine(dtype: torch.dtype) -> Tensor:
    one = torch.ones(1, 1, dtype=torch.float64)
    family = Affine(one, (above(dtype)[0] * one)[None], torch.ones(1, 1))
    out = torch.empty(1, 1, dtype=dtype)
    family.write(0, out)
    return out


ONES = [{"w": torch.ones(1, 1)}] * 4
WAYS: dict[str, Callable[[torch.dtype], Tensor]] = {
    "linear": lambda kind: leafwise(members(kind), linear(), dtype=kind)["w"],
    "wise_ft": lambda kind: leafwise(
        stack([{"w": torch.ones(1, 1)}]), wise_ft(), base=members(kind).params(0), dtype=kind
    )["w"],
    "task_arithmetic": lambda kind: leafwise(
        stack([{"w": members(kind).params(0)["w"]}]),
        task_arithmetic(scale=0.5),
        base={"w": torch.ones(1, 1)},
        dtype=kind,
    )["w"],
    "trimmed": lambda kind: leafwise(four(kind), trimmed(trim=0.0))["w"],
    "fisher": lambda kind: leafwise(four(kind), fisher(ONES))["w"],
    "regmean": lambda kind: leafwise(four(kind), regmean([{"w": torch.ones(1, 1)}] * 4))["w"],
    "amortised": lambda kind: amortised(
        stack([added(kind)[0]]),
        lambda tensors: torch.optim.SGD(tensors, lr=1.0 + above(kind)[0]),
        pivot={"w": torch.full((1, 1), 0.0)},
    )["w"],
    "mix": lambda kind: mix(four(kind), torch.full((4, 4), 0.25)).params(0)["w"],
    "merge_experts": lambda kind: merge_experts(
        {"w": torch.stack([four(kind).params(k)["w"] for k in range(4)])}, torch.ones(4), torch.zeros(4).long()
    )["w"],
    "add_adapters": lambda kind: add_adapters(added(kind)[0], [added(kind)[1]])["w"],
    "adding": lambda kind: leafwise(stack([added(kind)[0]]), adding([added(kind)[1]]))["w"],
    "adapted": factored,
    "path": affine,
}


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("way", WAYS)
def test_in_memory(way: str, dtype: torch.dtype) -> None:
    made = WAYS[way](dtype)
    assert made.dtype == dtype
    assert made.flatten()[0].item() == above(dtype)[1]


@pytest.mark.parametrize("dtype", HALF)
def test_of_files(dtype: torch.dtype, tmp_path: Path) -> None:
    paths = tuple(str(tmp_path / f"{k}.safetensors") for k in range(2))
    for path, params in zip(paths, members(dtype), strict=True):
        save_file({name: value.contiguous() for name, value in params.items()}, path)
    merge_files(Merge("linear", paths, dtype=str(dtype).removeprefix("torch.")), tmp_path / "out.safetensors")
    assert load_file(tmp_path / "out.safetensors")["w"].item() == above(dtype)[1]
