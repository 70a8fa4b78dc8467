"""The fused loop equals the torch reference bit for bit, compiled and as plain Python, on any number of threads."""

import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager

import numba
import pytest
import torch
from torch import Tensor

from pluria.numbers import kernel, threads
from pluria.numbers.format import FORMATS, Format
from pluria.numbers.grid import Granularity, Grid, fit_grid, layout
from pluria.numbers.key import ROUNDING, Key
from pluria.numbers.rounding import Address, round_rows, round_stochastic

TorchOnly = Callable[[], AbstractContextManager[None]]
NAMES = sorted(FORMATS)
LAYOUTS = [
    ((7, 13), 0, 1),  # odd rows, which do not start on whole Philox calls
    ((3, 1031), 0, 1),  # blocks that end inside a row
    ((2, 3, 3, 2), 0, 1),
    ((11, 6), 1, 1),
    ((6, 5, 3, 3), 1, 2),
    ((4, 3, 2), 1, 1),
    ((5, 1), 0, 1),
    ((1, 1), 0, 1),
]
MASKS = (0, 2**24 - 1, 5 << 20)
Layouts = tuple[tuple[int, ...], int, int]


BOTH = pytest.mark.parametrize("loops", ["compiled", "interpreted"], indirect=True)


def weights(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Gaussian, with zeros of both signs, small values and subnormal values among them."""
    out = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(3)
    flat = out.view(-1)
    flat[3::7], flat[4::7], flat[5::11], flat[6::13] = 0.0, -0.0, flat[5::11] * 1e-3, flat[6::13] * 1e-39
    return out.to(dtype)


def fitted(tensor: Tensor, form: Format, granularity: str = "channel", axis: int = 0, blocks: int = 1) -> Grid:
    found = layout(tensor.shape, axis=axis, blocks=blocks)
    size = next(g for g in (5, 3, 2, 1) if found.inputs % g == 0)
    chosen: Granularity = size if granularity == "group" else granularity  # type: ignore[assignment]
    return fit_grid(tensor, form, granularity=chosen, layout=found)


def bits(tensor: Tensor) -> Tensor:
    return tensor.view(torch.int32 if tensor.dtype == torch.float32 else torch.int16)


def assert_same_bits(
    tensor: Tensor, grid: Grid, mask: int, torch_only: TorchOnly, dtype: torch.dtype = torch.float32
) -> None:
    place = Address(Key(2**63 + 5), 4_000_000_000, 3, mask)
    got, want = (torch.full(tensor.shape, 7.0, dtype=dtype) for _ in range(2))
    assert kernel.serves(tensor, grid, got)
    round_stochastic(tensor, grid, place, got)
    with torch_only():
        assert not kernel.serves(tensor, grid, want)
        round_stochastic(tensor, grid, place, want)
    assert torch.equal(bits(got), bits(want))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
def test_formats_and_layouts(name: str, granularity: str, torch_only: TorchOnly) -> None:
    for number, (shape, axis, blocks) in enumerate(LAYOUTS):
        tensor = weights(shape, seed=number)
        grid = fitted(tensor, FORMATS[name], granularity, axis, blocks)
        assert_same_bits(tensor, grid, MASKS[number % 3], torch_only)


@BOTH
@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("name", ["int2", "int5-asymmetric", "fp8-e5m2", "nf4", "bf16"])
@pytest.mark.parametrize("mask", MASKS)
def test_masks_and_layouts_in_both_forms(name: str, mask: int, torch_only: TorchOnly) -> None:
    for number, (shape, axis, blocks) in enumerate([LAYOUTS[i] for i in (0, 3, 4)]):
        for granularity in ("channel", "group"):
            tensor = weights(shape, seed=number)
            assert_same_bits(tensor, fitted(tensor, FORMATS[name], granularity, axis, blocks), mask, torch_only)


@BOTH
@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("name", ["int4", "int3-asymmetric", "fp4-e2m1", "nf4"])
@pytest.mark.parametrize("source", kernel.READS)
@pytest.mark.parametrize("target", kernel.WRITES)
def test_dtypes(name: str, source: torch.dtype, target: torch.dtype, torch_only: TorchOnly) -> None:
    tensor = weights((3, 37), source)
    assert_same_bits(tensor, fitted(tensor, FORMATS[name]), 0, torch_only, target)


@BOTH
@pytest.mark.usefixtures("loops")
def test_every_float16_and_bfloat16_is_read_and_written(torch_only: TorchOnly) -> None:
    """The scales are one on 16-bit grids, so nearly all patterns go through; infinities end at the largest number."""
    step = 1 if isinstance(kernel._loops().fill_words, numba.core.dispatcher.Dispatcher) else 97  # type: ignore[union-attr]
    patterns = torch.arange(-(2**15), 2**15, step, dtype=torch.int32).to(torch.int16)
    for dtype, name in ((torch.float16, "fp16"), (torch.bfloat16, "bf16")):
        tensor = patterns.view(dtype)
        tensor = tensor[~torch.isnan(tensor)]
        found = layout((1, tensor.numel()))
        grid = Grid(FORMATS[name], found, found.inputs, torch.ones(1, 1))
        for target in kernel.WRITES:
            assert_same_bits(tensor.view(1, -1), grid, 0, torch_only, target)


@BOTH
@pytest.mark.usefixtures("loops")
def test_values_that_are_no_numbers_stay_so() -> None:
    tensor = torch.tensor([[1.0, float("nan"), -float("inf"), float("inf")]])
    grid = Grid(FORMATS["int4"], layout((1, 4)), 4, torch.ones(1, 1))
    for target in kernel.WRITES:
        out = torch.empty(1, 4, dtype=target)
        kernel.round_stochastic(tensor, grid, (0, 0), 0, 0, 0, out)
        assert out[0, [0, 2, 3]].tolist() == [1.0, -7.0, 7.0]
        assert bool(torch.isnan(out[0, 1]))


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", ["int4", "int4-asymmetric"])
def test_threads_share_a_tensor_without_a_seam(
    count: int, name: str, torch_only: TorchOnly, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    monkeypatch.setattr(threads, "SHARE", 1024)
    for shape, axis in (((37, 211), 0), ((211, 41), 1)):
        tensor = weights(shape)
        assert_same_bits(tensor, fitted(tensor, FORMATS[name], axis=axis), 0, torch_only)


def test_a_tensor_may_be_rounded_in_place(torch_only: TorchOnly) -> None:
    for name in ("int4", "fp8-e4m3", "nf4"):
        tensor = weights((5, 300))
        grid, place = fitted(tensor, FORMATS[name]), Address(Key(1), 2, 3, 0)
        with torch_only():
            want = round_stochastic(tensor, grid, place, torch.empty_like(tensor))
        assert torch.equal(round_stochastic(tensor, grid, place, tensor), want)


def test_what_is_not_served() -> None:
    tensor = weights((4, 6))
    grid = fitted(tensor, FORMATS["int4"])

    class Wrapped(Tensor):
        pass

    assert kernel.serves(tensor, grid, torch.empty(4, 6))
    assert kernel.serves(torch.nn.Parameter(tensor), grid, torch.empty(4, 6))
    for given, out in [
        (tensor.double(), torch.empty(4, 6)),
        (tensor, torch.empty(4, 6, dtype=torch.float16)),
        (tensor.t().contiguous().t(), torch.empty(4, 6)),
        (tensor, torch.empty(6, 4).t()),
        (tensor, torch.empty(4, 6, requires_grad=True)),
        (tensor.as_subclass(Wrapped), torch.empty(4, 6)),
        (tensor.to("meta"), torch.empty(4, 6, device="meta")),
        (tensor[:3], torch.empty(3, 6)),
        (tensor, torch.empty(3, 6)),
    ]:
        assert not kernel.serves(given, grid, out)
    odd = Grid(grid.format, grid.layout, grid.group, torch.ones(3, 1))
    assert not kernel.serves(tensor, odd, torch.empty(4, 6))


def test_a_tensor_that_is_not_served_takes_the_reference() -> None:
    tensor, place = weights((4, 6)), Address(Key(1), 2, 3, 0)
    grid = fitted(tensor, FORMATS["int4"])
    want = round_stochastic(tensor, grid, place, torch.empty(4, 6))
    double = torch.empty(4, 6, dtype=torch.float64)
    assert torch.equal(round_stochastic(tensor.double(), grid, place, double).float(), want)


def test_words_only_where_the_loops_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernel.available(None)
    assert kernel.available(torch.device("cpu"))
    assert not kernel.available(torch.device("meta"))
    monkeypatch.setattr(kernel, "_loops", lambda: None)
    assert not kernel.available(None)
    with pytest.raises(ValueError, match="without Numba"):
        kernel.words((0, 0), 0, 0, ROUNDING, 0, 4)
    with pytest.raises(ValueError, match="Numba cannot be imported"):
        kernel.round_stochastic(torch.ones(1, 1), None, (0, 0), 0, 0, 0, torch.ones(1, 1))  # type: ignore[arg-type]


def test_one_hint_and_the_reference_where_numba_is_absent(
    monkeypatch: pytest.MonkeyPatch, torch_only: TorchOnly
) -> None:
    monkeypatch.setitem(sys.modules, "pluria.numbers.compiled", None)
    monkeypatch.delattr("pluria.numbers.compiled")
    kernel._loops.cache_clear()
    try:
        tensor, place = weights((4, 6)), Address(Key(1), 2, 3, 0)
        grid, out = fitted(tensor, FORMATS["int4"]), torch.empty(4, 6)
        with pytest.warns(UserWarning, match="the slow path, since Numba cannot be imported"):
            assert not kernel.serves(tensor, grid, out)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            round_stochastic(tensor, grid, place, out)
    finally:
        kernel._loops.cache_clear()
    monkeypatch.undo()
    assert torch.equal(round_stochastic(tensor, grid, place, torch.empty(4, 6)), out)


@BOTH
@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("name", ["int8", "int5-asymmetric", "fp8-e4m3", "nf4"])
@pytest.mark.parametrize("target", kernel.WRITES)
@pytest.mark.parametrize("unit", [False, True])
def test_channels_that_lie_last_and_values_without_their_scale(
    name: str, target: torch.dtype, unit: bool, torch_only: TorchOnly
) -> None:
    tensor = weights((5, 7, 3, 3))
    grid, place = fitted(tensor, FORMATS[name]), Address(Key(3), 9, 1, 0)
    plain, want = torch.zeros(tensor.shape, dtype=target), torch.zeros(tensor.shape, dtype=target)
    last = torch.zeros_like(plain, memory_format=torch.channels_last)
    for out in (plain, last):
        assert kernel.serves(tensor, grid, out)
        round_stochastic(tensor, grid, place, out, unit=unit)
    with torch_only():
        round_stochastic(tensor, grid, place, want, unit=unit)
    assert torch.equal(bits(plain), bits(want))
    assert torch.equal(bits(last.contiguous()), bits(want))
    if unit and name.startswith("int"):
        assert torch.equal(plain, plain.round())
        assert float((plain.float() * grid.scale.view(-1, 1, 1, 1) - tensor).abs().max()) <= float(grid.scale.max())


@BOTH
@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("name", ["int8", "int3"])
def test_codes_go_straight_into_eight_bits(name: str, torch_only: TorchOnly) -> None:
    tensor = weights((5, 263))
    grid, place, out = fitted(tensor, FORMATS[name]), Address(Key(3), 9, 1, 0), torch.zeros(5, 263, dtype=torch.int8)
    assert kernel.serves(tensor, grid, out)
    with torch_only():
        want = round_stochastic(tensor, grid, place, torch.zeros(5, 263), unit=True)
    assert torch.equal(round_stochastic(tensor, grid, place, out, unit=True).float(), want)
    for other in ("int8-asymmetric", "fp8-e4m3"):
        assert not kernel.serves(tensor, fitted(tensor, FORMATS[other]), out)


@BOTH
@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("width", [8, 7])
@pytest.mark.parametrize("target", kernel.WRITES)
def test_rows_alone_are_those_of_the_whole(width: int, target: torch.dtype) -> None:
    tensor, place, rows = weights((9, width)), Address(Key(3), 9, 1, 5), torch.tensor([7, 0, 4])
    grid = fitted(tensor, FORMATS["int4"])
    whole = round_stochastic(tensor, grid, place, torch.empty(tensor.shape, dtype=target))
    out = torch.full(tensor.shape, 7.0, dtype=target)
    round_rows(tensor, grid, place, out, rows)
    assert torch.equal(bits(out[rows]), bits(whole[rows]))
    assert bool((out[[1, 2, 3, 5, 6, 8]] == 7).all())
    with pytest.raises(IndexError, match=r"there are rows 0\.\.8; got 1 to 9"):
        round_rows(tensor, grid, place, out, torch.tensor([1, 9]))
    round_rows(tensor, grid, place, out, rows[:0])
