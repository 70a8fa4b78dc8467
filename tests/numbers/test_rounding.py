"""Rounding: a slow loop, the exact law of the noise, and what never happens."""

import math

import pytest
import torch
from torch import Tensor

from pluria.numbers import rounding
from pluria.numbers.coupling import COUPLINGS, Coupling, address
from pluria.numbers.format import FORMATS, number_format
from pluria.numbers.grid import Granularity, Grid, fit_grid, layout
from pluria.numbers.key import ROUNDING, Key
from pluria.numbers.philox import words
from pluria.numbers.rounding import (
    Address,
    clipped,
    codes,
    decode,
    floor_codes,
    round_nearest,
    round_stochastic,
    variance,
)

NAMES = sorted(FORMATS)
NARROW = [name for name in NAMES if FORMATS[name].bits < 16]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(tensor: Tensor, name: str, granularity: Granularity = "channel") -> Grid:
    return fit_grid(tensor, number_format(name), granularity=granularity, layout=layout(tensor.shape))


def at(member: int, coupling: Coupling = "independent", seed: int = 1) -> Address:
    return Address(Key(seed), 77, *address(coupling, member))


def members(tensor: Tensor, grid: Grid, count: int, coupling: Coupling = "independent") -> Tensor:
    rounded = [round_stochastic(tensor, grid, at(d, coupling), torch.empty_like(tensor)) for d in range(count)]
    return torch.stack(rounded)


def nearest(tensor: Tensor, grid: Grid) -> Tensor:
    return round_nearest(tensor, grid, torch.empty_like(tensor))


def unit(tensor: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """v, its neighbours and the scale, flat."""
    scale, zero = grid.spread(0, tensor.numel())
    v = tensor.flatten() / scale
    low, high = grid.format.neighbours(v, zero)
    return v, low, high, scale.expand_as(v)


@pytest.mark.parametrize("coupling", COUPLINGS)
def test_a_tiny_tensor_by_a_slow_loop(coupling: Coupling) -> None:
    """INT-3 in Python floats: floor, one 24-bit integer against the fraction, times the scale."""
    weight = gaussian(3, 5)
    grid = fitted(weight, "int3")
    for member in range(4):
        group, mask = address(coupling, member)
        word = words(Key(1), tensor=77, group=group, stream=ROUNDING, start=0, stop=15).tolist()
        want = []
        for e, w in enumerate(weight.flatten().tolist()):
            scale = float(grid.scale[e // 5, 0])
            v = float(torch.tensor(w) / torch.tensor(scale))
            u = ((word[e] >> 8) ^ mask) / 2**24
            code = math.floor(v) + (1 if u < v - math.floor(v) else 0)
            want.append(float(torch.tensor(float(code)) * torch.tensor(scale)))
        got = round_stochastic(weight, grid, at(member, coupling), torch.empty_like(weight))
        assert got.flatten().tolist() == want


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_members_lie_on_the_two_neighbours(name: str, coupling: Coupling) -> None:
    weight = gaussian(4, 33)
    grid = fitted(weight, name)
    _, low, high, scale = unit(weight, grid)
    for member in members(weight, grid, 3, coupling).flatten(1):
        assert bool(((member == low * scale) | (member == high * scale)).all())


@pytest.mark.parametrize("name", NAMES)
def test_codes_are_the_rounded_values(name: str) -> None:
    weight = gaussian(4, 33)
    grid = fitted(weight, name)
    for place in (None, at(2)):
        code = codes(weight, grid, place)
        assert int(code.min()) >= 0
        assert int(code.max()) < 2**grid.format.bits
        value = nearest(weight, grid) if place is None else round_stochastic(weight, grid, place, torch.empty(4, 33))
        assert torch.equal(decode(code, grid, torch.empty(4, 33)), value)


@pytest.mark.parametrize("name", NAMES)
def test_floor_codes_differ_from_members_by_one_bit(name: str) -> None:
    weight = gaussian(4, 33)
    grid = fitted(weight, name)
    step = codes(weight, grid, at(0)) - floor_codes(weight, grid)
    assert set(step.unique().tolist()) == {0, 1}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_up_has_the_exact_probability(name: str, coupling: Coupling) -> None:
    """One weight between two neighbours, copied 20 000 times: the share of ups is binomial, in two members."""
    weight = torch.full((1, 20_000), 0.6321)
    weight[0, 0] = 1.0
    grid = fitted(weight, name)
    v, low, high, scale = unit(weight, grid)
    p = float((v[1].double() - low[1].double()) / (high[1].double() - low[1].double()))
    assert 0.1 < p < 0.9
    for member in members(weight, grid, 2, coupling).flatten(1)[:, 1:]:
        share = float((member == high[1] * scale[1]).double().mean())
        assert abs(share - p) < 4 * (p * (1 - p) / 19_999) ** 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("coupling", COUPLINGS)
def test_mean_and_variance(name: str, coupling: Coupling) -> None:
    weight = gaussian(2, 400)
    grid = fitted(weight, name)
    stated = variance(weight, grid).double()
    v, low, high, scale = (x.double() for x in unit(weight, grid))
    p = (v - low) / torch.where(high > low, high - low, 1.0)
    by_hand = scale**2 * p * (1 - p) * (high - low) ** 2
    torch.testing.assert_close(stated.flatten(), by_hand, rtol=1e-4, atol=1e-9 * float(by_hand.max()))
    count = 64
    drawn = members(weight, grid, count, coupling).double()
    off = drawn.mean(0) - weight.double()
    # Under a coupling the members' mean is closer than under independence, so the bound holds for all three.
    assert float(off.sum().abs()) < 4 * float(stated.sum() / count) ** 0.5
    room = (scale * (high - low)).view(2, 400) * 0.04 + 1e-6
    assert bool((off.abs() <= 6 * (stated / count) ** 0.5 + room).all())
    spread = (drawn - weight.double()).square().mean(0)
    assert float(spread.sum() / stated.sum()) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_a_weight_on_the_grid_never_moves(name: str) -> None:
    weight = gaussian(4, 60)
    grid = fitted(weight, name)
    on = nearest(weight, grid)
    at_grid = Grid(grid.format, grid.layout, grid.group, torch.ones_like(grid.scale), grid.zero)
    unscaled = decode(codes(on, grid, None), at_grid, torch.empty(4, 60))
    for member in members(unscaled, at_grid, 4):
        assert torch.equal(member, unscaled)
    assert float(variance(unscaled, at_grid).max()) == 0


@pytest.mark.parametrize("name", NAMES)
def test_zero_stays_a_positive_zero(name: str) -> None:
    weight = gaussian(3, 40)
    weight[1] = 0.0
    weight[0, 3], weight[2, 5] = -0.0, 0.0
    grid = fitted(weight, name)
    for rounded in (*members(weight, grid, 3), nearest(weight, grid)):
        assert bool((rounded[1] == 0).all())
        zeros = rounded[rounded == 0]
        assert not bool(torch.signbit(zeros).any())
        assert rounded[0, 3] == 0
        assert rounded[2, 5] == 0


@pytest.mark.parametrize("name", NAMES)
def test_nothing_leaves_the_grid_or_clips(name: str) -> None:
    weight = gaussian(64, 37) * torch.exp(3 * gaussian(64, 1, seed=2))  # w / s exceeds the top by an ulp in some rows
    grid = fitted(weight, name)
    code = codes(weight, grid, at(0))
    assert clipped(weight, grid) == 0
    assert 0 <= int(code.min()) <= int(code.max()) < 2**grid.format.bits
    if FORMATS[name].bits < 16:
        smaller = Grid(grid.format, grid.layout, grid.group, grid.scale / 2, grid.zero)
        assert clipped(weight, smaller) >= 64
        assert bool(torch.isfinite(members(weight, smaller, 1)).all())


@pytest.mark.parametrize("name", NARROW)
def test_the_nearest_is_the_nearer_and_has_half_the_error(name: str) -> None:
    weight = gaussian(32, 1024)
    grid = fitted(weight, name)
    v, low, high, scale = (x.double() for x in unit(weight, grid))
    best = torch.minimum((v - low).abs(), (high - v).abs()) * scale
    error = (nearest(weight, grid).double() - weight.double()).flatten()
    torch.testing.assert_close(error.abs(), best, rtol=1e-3, atol=1e-6)
    if FORMATS[name].bits < 8 and name.startswith("int") and FORMATS[name].bits > 3:
        stochastic = (members(weight, grid, 1)[0].double() - weight.double()).square().sum()
        assert float(stochastic / error.square().sum()) == pytest.approx(2.0, abs=0.05)


@pytest.mark.parametrize(("bits", "share"), [(6, 0.046), (5, 0.093), (4, 0.20), (3, 0.47)])
def test_relative_noise_of_gaussian_weights(bits: int, share: float) -> None:
    weight = gaussian(128, 1024)
    grid = fitted(weight, f"int{bits}")
    noise = float((members(weight, grid, 1)[0] - weight).norm() / weight.norm())
    assert noise == pytest.approx(share, rel=0.03)
    assert float(variance(weight, grid).sum().sqrt() / weight.norm()) == pytest.approx(share, rel=0.03)


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_sixteen_bit_formats_round_like_casts(name: str) -> None:
    weight = torch.cat([gaussian(2, 100), gaussian(2, 100) * 1e-6], dim=1)
    dtype = torch.bfloat16 if name == "bf16" else torch.float16
    assert torch.equal(nearest(weight, fitted(weight, name)), weight.to(dtype).float())


def test_subnormal_gaps_of_bf16_are_unbiased() -> None:
    weight = torch.full((1, 4000), 1.25 * 2.0**-133)  # a quarter of the way between 2^-133 and 2^-132
    grid = fitted(weight, "bf16")
    share = float((members(weight, grid, 1)[0] == 2.0**-132).double().mean())
    assert abs(share - 0.25) < 4 * (0.25 * 0.75 / 4000) ** 0.5


def test_weights_beyond_fp16_clip_and_are_counted() -> None:
    weight = torch.tensor([[65504.0, 7e4, -1e5, 1.0]])
    grid = fitted(weight, "fp16")
    assert clipped(weight, grid) == 2
    assert members(weight, grid, 1)[0].tolist() == [[65504.0, 65504.0, -65504.0, 1.0]]
    assert variance(weight, grid).tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_chunks_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = gaussian(5, 41)
    grid = fitted(weight, "int4-asymmetric", 41)
    functions = [
        lambda: rounding._round(weight, grid, at(1), torch.empty_like(weight)),
        lambda: nearest(weight, grid),
        lambda: codes(weight, grid, at(1)),
        lambda: floor_codes(weight, grid),
        lambda: decode(codes(weight, grid, None), grid, torch.empty_like(weight)),
        lambda: variance(weight, grid),
        lambda: torch.tensor(clipped(weight, grid)),
    ]
    whole = [function() for function in functions]
    monkeypatch.setitem(rounding.CHUNK, "cpu", 7)
    for function, want in zip(functions, whole, strict=True):
        assert torch.equal(function(), want)


@pytest.mark.parametrize("name", ["int4", "int4-asymmetric", "fp4-e2m1", "nf4"])
@pytest.mark.parametrize(("axis", "blocks", "shape"), [(1, 1, (6, 5)), (1, 2, (6, 5, 2, 2))])
def test_a_tensor_is_rounded_by_its_channels_wherever_they_lie(
    name: str, axis: int, blocks: int, shape: tuple[int, ...]
) -> None:
    """Nearest rounding commutes with bringing the output channels to the front."""
    weight = gaussian(*shape)
    found = layout(shape, axis=axis, blocks=blocks)
    grid = fit_grid(weight, number_format(name), layout=found)
    rows = found.to_rows(weight).contiguous()
    assert torch.equal(found.to_rows(nearest(weight, grid)), nearest(rows, fitted(rows, name)))


def test_inputs_and_the_global_generator_are_untouched() -> None:
    weight = gaussian(3, 8).requires_grad_()
    before, state = weight.detach().clone(), torch.get_rng_state()
    rounded = round_stochastic(weight, fitted(weight, "int4"), at(0), torch.empty(3, 8))
    assert not rounded.requires_grad
    assert torch.equal(weight, before)
    assert torch.equal(torch.get_rng_state(), state)
