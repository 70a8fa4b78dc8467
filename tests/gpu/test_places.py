"""Places beyond 2^31 elements: the arithmetic is tested, not the memory."""

import numpy as np
import pytest
import torch

from pluria.numbers.grid import Layout
from pluria.numbers.key import ROUNDING, Key
from pluria.numbers.philox import words

triton = pytest.importorskip("triton", reason="the tests of GPU kernels need Triton; `make triton` installs it")
tl = pytest.importorskip("triton.language")

from pluria.numbers import gpu, tiled  # noqa: E402  after the skip
from pluria.predict.kernels import tiled as product  # noqa: E402

FAR = [0, 2**31 - 8, 2**31 + 4, 2**33 + 12, 2**34 - 64]
"""First elements; multiples of four, the last of them near the end of what an address can name."""


@triton.jit
def _philox(out, quad, k0, k1, tensor, group):
    c0, c1, c2, c3 = tiled.philox(
        (quad + tl.arange(0, 1)).to(tl.uint32), tiled.unsigned(k0), tiled.unsigned(k1), tiled.unsigned(tensor),
        tiled.unsigned(group), tiled.unsigned(k0) * 0,
    )  # fmt: skip
    tl.store(out + tl.arange(0, 1), c0.to(tl.int64))
    tl.store(out + 1 + tl.arange(0, 1), c1.to(tl.int64))
    tl.store(out + 2 + tl.arange(0, 1), c2.to(tl.int64))
    tl.store(out + 3 + tl.arange(0, 1), c3.to(tl.int64))


@triton.jit
def _words(whole, single, first_at, k0, k1, tensor, group):
    first = tl.load(first_at)
    zero = tiled.unsigned(group) * 0
    quad = (first // 4 + tl.arange(0, 8)).to(tl.uint32)
    k0, k1, tensor, group = tiled.unsigned(k0), tiled.unsigned(k1), tiled.unsigned(tensor), tiled.unsigned(group)
    offset = tl.arange(0, 32)
    tl.store(whole + offset, tiled.words(quad, k0, k1, tensor, group, zero).to(tl.int64))
    tl.store(single + offset, tiled.words_at(first + offset, k0, k1, tensor, group, zero).to(tl.int64))


@triton.jit
def _scales(out, first_at, numbers, RUNS: tl.constexpr, SMALL: tl.constexpr):
    size, groups, outer = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    channels, inner = tl.load(numbers + 3), tl.load(numbers + 4)
    offset = tl.arange(0, 32)
    at = tiled.scale_place(tl.load(first_at), offset, size, groups, outer, channels, inner, False, RUNS, SMALL)
    tl.store(out + offset, at.to(tl.int64))


@triton.jit
def _places(out, row, width):
    at = product.place(row + tl.arange(0, 4), tl.arange(0, 4), width)
    tl.store(out + tl.arange(0, 4)[:, None] * 4 + tl.arange(0, 4)[None, :], at)


@triton.jit
def _short_places(out, row, width):
    at = (row + tl.arange(0, 4))[:, None] * width + tl.arange(0, 4)[None, :]
    tl.store(out + tl.arange(0, 4)[:, None] * 4 + tl.arange(0, 4)[None, :], at.to(tl.int64))


def test_the_known_answer_of_philox(device: torch.device) -> None:
    out = torch.zeros(4, dtype=torch.int64, device=device)
    _philox[(1,)](out, 0, 0, 0, 0, 0)
    assert [f"{word:08x}" for word in out.tolist()] == ["6627e8d5", "e169c58d", "bc57ac4c", "9b00dbd8"]


@pytest.mark.parametrize("first", FAR)
def test_words(first: int, device: torch.device) -> None:
    key, tensor, group = Key(2**64 - 3), 4_000_000_000, 2**24 - 5
    whole, single = (torch.zeros(32, dtype=torch.int64, device=device) for _ in range(2))
    at = torch.tensor(first, device=device)
    _words[(1,)](whole, single, at, *(gpu.signed(word) for word in (*key.words, tensor, group)))
    want = words(key, tensor=tensor, group=group, stream=ROUNDING, start=first, stop=first + 32)
    assert torch.equal(whole.cpu(), want)
    assert torch.equal(single.cpu(), want)


@pytest.mark.parametrize("first", FAR)
@pytest.mark.parametrize("group", [4, 24, 4096])
def test_scales_of_rows(first: int, group: int, device: torch.device) -> None:
    out = torch.zeros(32, dtype=torch.int64, device=device)
    numbers = torch.tensor([group, 2**33 // group, 1, 4, 2**33], device=device)
    _scales[(1,)](out, torch.tensor(first, device=device), numbers, RUNS=True, SMALL=group if group < 32 else 0)
    assert torch.equal(out.cpu(), torch.arange(first, first + 32) // group)


@pytest.mark.parametrize("first", FAR)
def test_scales_of_other_layouts(first: int, device: torch.device) -> None:
    layout, group = Layout(4, 2**15, 2**15, 4), 8
    out = torch.zeros(32, dtype=torch.int64, device=device)
    numbers = torch.tensor([group, layout.inputs // group, layout.outer, layout.channels, layout.inner], device=device)
    _scales[(1,)](out, torch.tensor(first, device=device), numbers, RUNS=False, SMALL=0)
    row, column = layout.place(first, first + 32)
    assert torch.equal(out.cpu(), row * (layout.inputs // group) + column // group)


def test_places_in_a_large_matrix(device: torch.device) -> None:
    row, width = 2**20, 2**13 + 1
    want = (row + torch.arange(4))[:, None] * width + torch.arange(4)
    out = torch.zeros(4, 4, dtype=torch.int64, device=device)
    _places[(1,)](out, row, width)
    assert torch.equal(out.cpu(), want)
    # Places in 32 bits wrap around, and this test would see it.
    with np.errstate(over="ignore"):
        _short_places[(1,)](out, row, width)
    assert not torch.equal(out.cpu(), want)
