"""Layouts against slow loops over the indices of real layers, and the scales fitted on them."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from pluria.numbers.format import FORMATS, Integer
from pluria.numbers.grid import Granularity, Grid, Layout, fit_grid, layout

INT4 = FORMATS["int4"]


def slow(shape: tuple[int, ...], kind: str, groups: int = 1) -> list[tuple[int, int]]:
    """Output channel and number of the input, for every element in order, spelled out per kind of layer."""
    out = []
    for index in itertools.product(*(range(n) for n in shape)):
        if kind in ("linear", "conv"):  # [out, in / groups, *kernel]
            rest = 0
            for i, n in zip(index[1:], shape[1:], strict=True):
                rest = rest * n + i
            out.append((index[0], rest))
        elif kind == "conv1d":  # [in, out]
            out.append((index[1], index[0]))
        else:  # transposed convolution: [in, out / groups, *kernel]
            per_group = shape[0] // groups
            rest = index[0] % per_group
            for i, n in zip(index[2:], shape[2:], strict=True):
                rest = rest * n + i
            out.append((index[0] // per_group * shape[1] + index[1], rest))
    return out


CASES = [
    ("linear", (5, 7), layout((5, 7)), 1),
    ("conv", tuple(nn.Conv2d(6, 4, (3, 2), groups=2).weight.shape), layout((4, 3, 3, 2)), 1),
    ("conv1d", (7, 5), layout((7, 5), axis=1), 1),
    ("transposed", tuple(nn.ConvTranspose2d(6, 4, (2, 3)).weight.shape), layout((6, 4, 2, 3), axis=1), 1),
    (
        "transposed",
        tuple(nn.ConvTranspose2d(6, 8, (2, 3), groups=2).weight.shape),
        layout((6, 4, 2, 3), axis=1, blocks=2),
        2,
    ),
]


@pytest.mark.parametrize(("kind", "shape", "found", "groups"), CASES)
def test_places_are_those_of_a_slow_loop(kind: str, shape: tuple[int, ...], found: Layout, groups: int) -> None:
    want = slow(shape, kind, groups)
    row, j = found.place(0, found.numel)
    assert list(zip(row.tolist(), j.tolist(), strict=True)) == want
    row, j = found.place(5, 17)
    assert list(zip(row.tolist(), j.tolist(), strict=True)) == want[5:17]


@pytest.mark.parametrize(("kind", "shape", "found", "groups"), CASES)
def test_rows_hold_each_channels_inputs_and_go_back(
    kind: str, shape: tuple[int, ...], found: Layout, groups: int
) -> None:
    tensor = torch.arange(found.numel, dtype=torch.float32).view(shape)
    rows = found.to_rows(tensor)
    assert rows.shape == (found.rows, found.inputs)
    for value, (row, j) in enumerate(slow(shape, kind, groups)):
        assert rows[row, j] == value
    assert torch.equal(found.from_rows(rows, shape), tensor)


@pytest.mark.parametrize(("kind", "shape", "found", "groups"), CASES)
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("name", ["int4", "int3-asymmetric"])
def test_scales_are_those_of_a_slow_loop(
    kind: str, shape: tuple[int, ...], found: Layout, groups: int, granularity: str, name: str
) -> None:
    tensor = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    size = next(g for g in (3, 2, 7) if found.inputs % g == 0)
    chosen: Granularity = size if granularity == "group" else granularity  # type: ignore[assignment]
    grid = fit_grid(tensor, FORMATS[name], granularity=chosen, layout=found)
    parts: dict[tuple[int, int], list[int]] = {}
    for e, (row, j) in enumerate(slow(shape, kind, groups)):
        part = {"tensor": (0, 0), "channel": (row, 0), "group": (row, j // size)}[granularity]
        parts.setdefault(part, []).append(e)
    scale, zero = grid.spread(0, found.numel)
    scale = scale.expand(found.numel)
    for elements in parts.values():
        inside = tensor.flatten()[elements]
        want_scale, want_zero = FORMATS[name].scale(inside.min().view(1), inside.max().view(1))
        assert torch.equal(scale[elements], want_scale.expand(len(elements)))
        if want_zero is not None:
            assert zero is not None
            assert torch.equal(zero.expand(found.numel)[elements], want_zero.expand(len(elements)))
    assert grid.bits() == len(parts) * (32 if zero is None else 40)


def test_spread_of_a_range() -> None:
    grid = fit_grid(torch.randn(6, 4, 2, 3), INT4, granularity=2, layout=layout((6, 4, 2, 3), axis=1, blocks=2))
    whole, _ = grid.spread(0, 144)
    assert torch.equal(grid.spread(11, 93)[0], whole[11:93])


@pytest.mark.parametrize("group", [0, 3, 5, 16])
def test_groups_that_do_not_divide_are_refused(group: int) -> None:
    with pytest.raises(ValueError, match=f"groups of {group} do not divide the 8 inputs"):
        fit_grid(torch.ones(2, 8), INT4, granularity=group, layout=layout((2, 8)))


def test_blocks_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match=r"4 blocks do not divide the 6 inputs of a tensor of shape \(6, 5\)"):
        layout((6, 5), axis=1, blocks=4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_tensors_that_are_not_finite_are_refused(value: float) -> None:
    tensor = torch.ones(2, 8)
    tensor[1, 3] = value
    with pytest.raises(ValueError, match="NaN or Inf among the weights"):
        fit_grid(tensor, INT4, layout=layout((2, 8)))


def test_scales_are_float32_whatever_the_weights() -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        grid = fit_grid(torch.full((2, 3), 0.7).to(dtype), INT4, layout=layout((2, 3)))
        assert grid.scale.dtype == torch.float32
        assert torch.equal(grid.scale, torch.full((2, 1), 0.7).to(dtype).float() / 7)


def test_gradients_are_not_followed_and_sixteen_bits_store_no_scale() -> None:
    weight = nn.Parameter(torch.randn(3, 4))
    grid = fit_grid(weight, FORMATS["bf16"], layout=layout((3, 4)))
    assert not grid.scale.requires_grad
    assert grid.bits() == 0


def test_a_grid_moves_with_its_scales() -> None:
    scale: Tensor = torch.ones(2, 1)
    for zero in (None, torch.zeros(2, 1)):
        moved = Grid(Integer(4, symmetric=zero is None), layout((2, 8)), 8, scale, zero).to(torch.device("meta"))
        assert moved.scale.device.type == "meta"
        assert zero is None or (moved.zero is not None and moved.zero.device.type == "meta")
