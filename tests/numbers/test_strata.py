"""Members that are written from notes have the bits of those that are drawn, whatever was noted before."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor

from pluria.numbers import kernel, threads
from pluria.numbers.coupling import address
from pluria.numbers.format import FORMATS, Integer
from pluria.numbers.grid import Grid, fit_grid, layout
from pluria.numbers.key import Key
from pluria.numbers.rounding import Address, round_stochastic
from pluria.numbers.strata import MEMBERS, Strata

TorchOnly = Callable[[], AbstractContextManager[None]]
INTEGERS = sorted(name for name, form in FORMATS.items() if isinstance(form, Integer))
DRAWS = (0, 1, 15, 16, 7, 16 * 77 + 5, 2**24 - 1, 7)
BOTH = pytest.mark.parametrize("loops", ["compiled", "interpreted"], indirect=True)


def weights(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Gaussian, with zeros, weights just beside grid points, and one on each end of every row."""
    out = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    flat = out.view(len(out), -1)
    flat[:, 2::7], flat[:, 3::5] = 0.0, flat[:, 3::5] * 1e-7
    return out.to(dtype)


def place(draw: int) -> Address:
    group, mask = address("stratified", draw)
    return Address(Key(2**63 + 5), 4_000_000_000, group, mask)


def fitted(tensor: Tensor, name: str, granularity: str = "channel", axis: int = 0) -> Grid:
    found = layout(tensor.shape, axis=axis)
    return fit_grid(tensor, FORMATS[name], granularity=5 if granularity == "group" else granularity, layout=found)  # type: ignore[arg-type]


def assert_members(tensor: Tensor, grid: Grid, out: Tensor, torch_only: TorchOnly, *, unit: bool = False) -> None:
    strata = Strata()
    for draw in DRAWS:
        assert kernel.serves(tensor, grid, out.fill_(3))
        round_stochastic(tensor, grid, place(draw), out, unit=unit, strata=strata)
        with torch_only():
            want = round_stochastic(tensor, grid, place(draw), torch.empty_like(out, dtype=torch.float32), unit=unit)
        assert torch.equal(out, want.to(out.dtype))
        assert not bool((torch.signbit(out) & (out == 0)).any())


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("name", INTEGERS)
def test_every_integer_format(name: str, granularity: str, torch_only: TorchOnly) -> None:
    for shape, axis in (((7, 35), 0), ((3, 1540), 0), ((15, 6), 1), ((2, 5, 3, 3), 0)):
        tensor = weights(*shape)
        grid = fitted(tensor, name, granularity, axis)
        assert_members(tensor, grid, torch.empty(shape), torch_only)


@BOTH
@pytest.mark.usefixtures("loops")
@pytest.mark.parametrize("source", kernel.READS)
@pytest.mark.parametrize("target", [*kernel.WRITES, torch.int8])
def test_dtypes_and_memory_orders(source: torch.dtype, target: torch.dtype, torch_only: TorchOnly) -> None:
    tensor = weights(4, 5, 3, 3, dtype=source)
    out = torch.empty(tensor.shape, dtype=target)
    assert_members(tensor, fitted(tensor, "int5"), out, torch_only, unit=True)
    if target != torch.int8:
        last = torch.empty_like(out, memory_format=torch.channels_last)
        assert_members(tensor, fitted(tensor, "int4-asymmetric"), last, torch_only)


def test_sixteen_members_round_up_as_often_as_the_weight_says() -> None:
    """A weight at 5/16 between two grid points: five of the first sixteen members, and of the next, are above it."""
    tensor = torch.tensor([[7.0, 5 / 16, -11 / 16, 1e-6]])
    grid, strata = fitted(tensor, "int4"), Strata()
    for first in (0, MEMBERS):
        rows = [
            round_stochastic(tensor, grid, place(first + d), torch.empty(1, 4), strata=strata).clone()
            for d in range(MEMBERS)
        ]
        assert torch.cat(rows).sum(0).tolist()[:3] == [7.0 * 16, 5.0, -11.0]
        assert 0 <= float(torch.cat(rows)[:, 3].sum()) <= 1


@pytest.mark.parametrize("count", [1, 2, 3])
def test_threads_note_without_a_seam(count: int, torch_only: TorchOnly, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: count)
    monkeypatch.setattr(threads, "SHARE", 1024)
    tensor = weights(37, 211)
    assert_members(tensor, fitted(tensor, "int4"), torch.empty(37, 211), torch_only)


@BOTH
@pytest.mark.usefixtures("loops")
def test_notes_that_were_broken_off_are_made_anew(torch_only: TorchOnly, monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = weights(5, 1000)
    grid, strata, out = fitted(tensor, "int4"), Strata(), torch.empty(5, 1000)
    round_stochastic(tensor, grid, place(0), out, strata=strata)
    with monkeypatch.context() as patch:
        patch.setattr(kernel, "share", lambda work, count, block: work(0, 2 * block))  # the others never come
        round_stochastic(tensor, grid, place(16), out, strata=strata)
    for draw in (18, 3):
        round_stochastic(tensor, grid, place(draw), out, strata=strata)
        with torch_only():
            assert torch.equal(out, round_stochastic(tensor, grid, place(draw), torch.empty(5, 1000)))


def test_a_weight_that_is_no_number_any_more_cannot_be_noted() -> None:
    tensor = weights(5, 1000)
    grid, strata, out = fitted(tensor, "int4"), Strata(), torch.empty(5, 1000)
    tensor[4, 999] = float("nan")
    for _ in range(2):  # and again, when it is tried again
        with pytest.raises(ValueError, match="a weight is NaN that was a number when its grid was fitted"):
            round_stochastic(tensor, grid, place(0), out, strata=strata)


def test_other_formats_take_no_notes(torch_only: TorchOnly) -> None:
    for name in ("fp4-e2m1", "nf4", "bf16"):
        tensor, strata = weights(4, 40), Strata()
        assert_members(tensor, fitted(tensor, name), torch.empty(4, 40), torch_only)
        round_stochastic(tensor, fitted(tensor, name), place(1), torch.empty(4, 40), strata=strata)
        assert strata._held.size == 0


def test_rows_alone_are_drawn() -> None:
    tensor, strata = weights(9, 100), Strata()
    grid, rows = fitted(tensor, "int4"), torch.tensor([7, 0])
    whole, out = round_stochastic(tensor, grid, place(5), torch.empty(9, 100)), torch.zeros(9, 100)
    kernel.round_stochastic(
        tensor, grid, Key(2**63 + 5).words, 4_000_000_000, 0, place(5).mask, out, rows=rows, strata=strata
    )
    assert torch.equal(out[rows], whole[rows])
    assert not bool(out[1:7].any())
