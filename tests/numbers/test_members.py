"""Loops over members, as compiled and as plain Python: bit for bit what torch's operations give one after the other."""

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType

import pytest
import torch
from torch import Tensor

from pluria.numbers import compiled_elect, compiled_members, compiled_radix, members, radix
from pluria.numbers.members import Differences

LENGTH = 4101
KINDS = [torch.bfloat16, torch.float16, torch.float32]


@pytest.fixture(params=["compiled", "interpreted"], autouse=True)
def loops(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, as_python: Callable[..., ModuleType]
) -> None:
    if request.param == "interpreted":
        for front, back in ((members, compiled_members), (radix, compiled_radix)):
            monkeypatch.setattr(front, "_loops", partial(as_python, back))
        monkeypatch.setattr(members, "_passes", partial(as_python, compiled_elect))


def rows(count: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Coarse enough that much is equal, with zeros of both signs and the smallest numbers."""
    draw = torch.Generator().manual_seed(count)
    values = torch.randn(count, LENGTH, generator=draw).bfloat16()
    values[:, :40] = torch.randint(-2, 3, (count, 40), generator=draw).bfloat16()
    values[:, 40:60] = -0.0
    values[:, 60:70] = 6e-8
    return values.to(dtype)


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [0.3, 0.0, -1.7], [0.1, 0.2, 0.7]])
def test_weighted_sums(weights: list[float], dtype: torch.dtype) -> None:
    held, total = rows(3, dtype), torch.zeros(LENGTH)
    for row, weight in zip(held, weights, strict=True):
        total += row.float() * weight
    assert equal(members.weighted_sum(held, weights), total)


@pytest.mark.parametrize("dtype", KINDS[:2])
def test_differences(dtype: torch.dtype) -> None:
    held = rows(4, dtype)
    assert equal(members.differences(held), held[:3].float() - held[3].float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_small_becomes_zero(dtype: torch.dtype) -> None:
    held = rows(3).to(dtype)
    low = radix.patterns(torch.tensor([0.5, 0.5, 1.0], dtype=dtype)).long()
    high, cut = low + torch.tensor([2, 1, 1]) * 2**16, torch.tensor([0, LENGTH, 17])
    least = torch.where(torch.arange(LENGTH) < cut[:, None], low[:, None], high[:, None])
    wanted = torch.where(radix.patterns(held) >= least, held, 0.0)
    members.keep(held, (low, high, cut))
    assert equal(held, wanted)
    assert 0 < int((held != 0).sum()) < held.numel()


@pytest.mark.parametrize("tie", [1.0, -1.0])
@pytest.mark.parametrize("taken", [[1.0, 1.0, 1.0], [0.2, 0.0, 0.8]])
def test_means_of_those_with_the_sign_of_the_votes(tie: float, taken: list[float]) -> None:
    held, mass = rows(3).float(), [0.5, 1.5, 0.25]
    votes = held.sum(0)
    votes[100:110] = -0.0
    sign = torch.ones(LENGTH).copysign(votes)
    sign = torch.where(votes == 0, -1.0, sign) if tie < 0 else sign
    total, count = torch.zeros(LENGTH), torch.zeros(LENGTH)
    for row, each, factor in zip(held, taken, mass, strict=True):
        own = (row * sign).clamp(min=0)
        count += own.sign() * each
        total += own * factor
    assert bool((votes == 0).any())
    assert equal(members.elected(held, votes, taken, mass, tie), total / count.clamp(min=1e-30) * sign)


@pytest.mark.parametrize("dtype", KINDS[:2])
@pytest.mark.parametrize("tie", [1.0, -1.0])
@pytest.mark.parametrize("voices", [[1.0, 1.0, 1.0], [0.2, 0.0, 0.8]])
def test_signs_elected_in_one_pass_are_those_of_one_step_after_the_other(
    voices: list[float], tie: float, dtype: torch.dtype
) -> None:
    held, taken, mass = rows(4, dtype), [0.2, 0.3, 0.5], [0.5, 1.5, 0.25]
    low = radix.patterns(torch.tensor([0.5, 0.5, 1.0])).long()
    bounds = low, low + torch.tensor([2, 1, 1]) * 2**16, torch.tensor([0, 2**62, 1500])
    deltas = members.differences(held)
    members.keep(deltas, bounds)
    votes = members.weighted_sum(deltas, voices)
    wanted = members.elected(deltas, votes, taken, mass, tie).mul(0.7) + held[3].float()
    found = members.mean_of_elected(Differences(held), bounds, voices, taken, mass, tie, 0.7)
    assert equal(found, wanted)
    assert bool((votes == 0).any())
    assert members.sum_of_signs(Differences(held), bounds, voices) == int(votes.sign().sum()) != 0


@pytest.mark.parametrize("dtype", KINDS[:2])
@pytest.mark.parametrize(("shift", "bits"), [(16, 15), (8, 8), (0, 16), (13, 0)])
def test_histograms_of_differences(shift: int, bits: int, dtype: torch.dtype) -> None:
    held = rows(4, dtype)
    wide, apart = members.differences(held), Differences(held)
    prefix = torch.zeros(1, 3, dtype=torch.int64)
    if shift + bits < 31:
        prefix = radix.patterns(wide[:, 90:91]).T.long() >> shift + bits
    found = radix.histogram(apart, prefix, shift, bits)
    assert torch.equal(found, radix.histogram(wide, prefix, shift, bits))
    assert int(found.sum()) > 0
    assert apart.shape == wide.shape
    assert all(equal(apart[row], wide[row]) for row in range(len(apart)))


@pytest.mark.parametrize("dtype", KINDS[:2])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", [0, 2050, LENGTH - 1])
def test_one_infinity_is_found(place: int, bad: float, dtype: torch.dtype) -> None:
    held = rows(3, dtype)
    held[0, 1] = torch.finfo(dtype).max
    assert members.finite(held)
    held[2, place] = bad
    assert not members.finite(held)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("below", "bits"), [(16, 15), (8, 8), (0, 8), (5, 0)])
def test_histograms(below: int, bits: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    held = rows(3).to(dtype)
    shift = below + (radix.BITS[dtype] - 31 if bits == 15 else 0)
    all_bits = shift + bits == radix.BITS[dtype]
    prefix = (
        torch.zeros(2, 3, dtype=torch.int64) if all_bits else radix.patterns(held[:, 70:72]).T.long() >> shift + bits
    )
    known = torch.ones(2, 3, 2**bits, dtype=torch.int32)
    found = radix.histogram(held, prefix, shift, bits, known.clone())
    monkeypatch.setattr(radix.kernel, "available", lambda device: False)
    assert torch.equal(found, radix.histogram(held, prefix, shift, bits) + 1)
    assert int(found.sum()) > known.numel()


def test_only_long_rows_of_known_kinds_are_served() -> None:
    held = rows(3)
    assert members.serves(held, torch.bfloat16)
    for other in (held[:, :99], held.float(), held.T, held[0], held.float().requires_grad_()):
        assert not members.serves(other, torch.bfloat16)


def equal(one: Tensor, other: Tensor) -> bool:
    """Whether all bits are equal, signs of zeros included."""
    return torch.equal(one, other) and torch.equal(one.signbit(), other.signbit())


def test_loops_are_loaded_for_many_elements_alone() -> None:
    code = (
        "import sys; from pluria.numbers import members\n"
        "members.prepare(members.LARGE - 1); few = members.LOADED in sys.modules\n"
        "members.prepare(members.LARGE); print(few, members.LOADED in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
