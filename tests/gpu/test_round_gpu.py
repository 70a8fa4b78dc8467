"""The GPU's rounding equals the torch reference bit for bit."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor

from pluria.core.family import Shared
from pluria.core.rounded import Rounded
from pluria.numbers import gpu, kernel
from pluria.numbers.coupling import COUPLINGS, Coupling
from pluria.numbers.format import FORMATS
from pluria.numbers.grid import Granularity, Grid, fit_grid, layout
from pluria.numbers.key import Key
from pluria.numbers.rounding import Address, round_stochastic

Reference = Callable[[], AbstractContextManager[None]]
INTEGERS = sorted(name for name in FORMATS if name.startswith("int"))
LAYOUTS = [
    ((7, 13), 0, 1),  # odd rows, which do not start on whole Philox calls
    ((3, 1031), 0, 1),  # blocks that end inside a row
    ((11, 6), 1, 1),
    ((6, 5, 3, 3), 1, 2),
]
PLACE = Address(Key(2**63 + 5), 4_000_000_000, 3, 5 << 20)
KINDS = (torch.float32, torch.bfloat16, torch.float16)


def weights(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """Gaussian, with zeros of both signs, small and subnormal values, and a channel of zeros among them."""
    out = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(3)
    flat = out.view(-1)
    flat[3::7], flat[4::7], flat[5::11], flat[6::13] = 0.0, -0.0, flat[5::11] * 1e-3, flat[6::13] * -1e-39
    out[0] = 0.0
    return out.to(dtype)


def fitted(tensor: Tensor, name: str, granularity: str = "channel", axis: int = 0, blocks: int = 1) -> Grid:
    found = layout(tensor.shape, axis=axis, blocks=blocks)
    size = next(g for g in (5, 3, 2, 1) if found.inputs % g == 0)
    chosen: Granularity = size if granularity == "group" else granularity  # type: ignore[assignment]
    return fit_grid(tensor, FORMATS[name], granularity=chosen, layout=found)


def bits(tensor: Tensor) -> Tensor:
    return tensor.view(torch.int32 if tensor.dtype == torch.float32 else torch.int16).cpu()


def both(
    tensor: Tensor, grid: Grid, device: torch.device, reference: Reference, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    """Bits by the kernel and by torch on a CPU."""
    got, want = (torch.full(tensor.shape, 7.0, dtype=dtype, device=place) for place in (device, "cpu"))
    there, own = tensor.to(device), grid.to(device)
    assert gpu.serves(there, own, got)
    gpu.round_stochastic(there, own, PLACE.key.words, PLACE.tensor, PLACE.group, PLACE.mask, got)
    with reference():
        round_stochastic(tensor, grid, PLACE, want)
    return bits(got), bits(want)


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
def test_formats_and_layouts(name: str, granularity: str, device: torch.device, reference: Reference) -> None:
    for shape, axis, blocks in LAYOUTS:
        tensor = weights(shape)
        got, want = both(tensor, fitted(tensor, name, granularity, axis, blocks), device, reference)
        assert torch.equal(got, want), shape


@pytest.mark.parametrize("read", KINDS)
@pytest.mark.parametrize("write", KINDS)
def test_dtypes(read: torch.dtype, write: torch.dtype, device: torch.device, reference: Reference) -> None:
    tensor = weights((5, 301), read)
    got, want = both(tensor, fitted(tensor, "int5"), device, reference, write)
    assert torch.equal(got, want)


@pytest.mark.parametrize("coupling", COUPLINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_members_in_place(
    coupling: Coupling, dtype: torch.dtype, device: torch.device, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Families take the kernel unasked where the CPU's loops do not serve."""
    base = weights((6, 70), dtype)
    family = Rounded(Shared(base), "w", FORMATS["int4"], 10, layout(base.shape), Key(3), coupling)
    there = Rounded(Shared(base.to(device)), "w", FORMATS["int4"], 10, layout(base.shape), Key(3), coupling)
    for member in (0, 1, 2, 7):
        want, got = torch.empty_like(base), torch.empty_like(base, device=device)
        with reference():
            family.write(member, want)
        with monkeypatch.context() as patch:
            patch.setattr(kernel, "available", lambda device: False)
            patch.setattr("pluria.numbers.rounding._round", None)
            there.write(member, got)
        assert torch.equal(bits(got), bits(want))


def test_the_base_may_be_the_target(device: torch.device, reference: Reference) -> None:
    tensor = weights((4, 600))
    grid = fitted(tensor, "int3")
    with reference():
        want = round_stochastic(tensor, grid, PLACE, torch.empty_like(tensor))
    there = tensor.to(device)
    gpu.round_stochastic(there, grid.to(device), PLACE.key.words, PLACE.tensor, PLACE.group, PLACE.mask, there)
    assert torch.equal(bits(there), bits(want))


@pytest.mark.parametrize("wrong", [{"mask": 0}, {"group": 4}, {"tensor": 4_000_000_001}, {"key": Key(2**63 + 4)}])
def test_a_wrong_address_is_seen(
    wrong: dict[str, int], device: torch.device, reference: Reference, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensor = weights((5, 100))
    monkeypatch.setattr("test_round_gpu.PLACE", Address(**{**vars(PLACE), **wrong}))
    got, _ = both(tensor, fitted(tensor, "int4"), device, reference)
    monkeypatch.undo()
    _, want = both(tensor, fitted(tensor, "int4"), device, reference)
    assert not torch.equal(got, want)


def test_nothing_to_round(device: torch.device) -> None:
    empty = torch.empty(0, 4, device=device)
    grid = Grid(FORMATS["int4"], layout((0, 4)), 4, torch.ones(0, 1, device=device))
    assert gpu.round_stochastic(empty, grid, (0, 0), 0, 0, 0, empty) is empty


def test_what_is_not_served(device: torch.device) -> None:
    tensor = weights((6, 8)).to(device)
    grid, out = fitted(tensor, "int4"), torch.empty_like(tensor)
    assert gpu.serves(tensor, grid, out)
    assert not gpu.serves(tensor, fitted(tensor, "nf4"), out)
    assert not gpu.serves(tensor.t(), grid, out)
    assert not gpu.serves(tensor, grid, out.double())
    assert not gpu.serves(tensor, grid, out.clone().requires_grad_())
    assert not gpu.serves(tensor[:3], grid, out[:3])
