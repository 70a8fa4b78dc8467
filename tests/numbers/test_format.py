"""Number systems: grids, codes, neighbours, and nearest values against the casts of torch and numpy."""

import numpy as np
import pytest
import torch
from torch import Tensor

from pluria.numbers.format import FORMATS, Format, Integer, Minifloat, NormalFloat, number_format

NAMES = sorted(FORMATS)
PUBLISHED_NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


def values(form: Format) -> tuple[Tensor, Tensor, Tensor | None]:
    """All codes, their values and a zero point."""
    zero = torch.tensor(3.0) if isinstance(form, Integer) and not form.symmetric else None
    code = torch.arange(2**form.bits)
    if isinstance(form, Integer) and form.symmetric:
        code = code[:-1]
    value = form.decode(code, zero)
    if isinstance(form, Minifloat):
        keep = value.abs() <= form.largest
        code, value = code[keep], value[keep]
    return code, value, zero


def nearest(v: Tensor, form: Format) -> Tensor:
    """The nearer of the two neighbours, ties to the even code: a slow second statement of the rule."""
    low, high = form.neighbours(v, None)
    zero = int(form.encode(torch.zeros(1), None))
    out = []
    for x, below, above in zip(v.double().tolist(), low.double().tolist(), high.double().tolist(), strict=True):
        even = (int(form.encode(torch.tensor([below]), None)) - zero) % 2 == 0
        tie = below if even else above
        out.append(below if x - below < above - x else above if x - below > above - x else tie)
    return torch.tensor(out, dtype=torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_the_grid_is_sorted_and_codes_go_round(name: str) -> None:
    code, value, zero = values(FORMATS[name])
    assert bool((value.diff() > 0).all())
    assert torch.equal(FORMATS[name].encode(value, zero), code)
    assert value.dtype == torch.float32
    assert code.dtype == torch.int64
    assert 0 in value


@pytest.mark.parametrize("name", NAMES)
def test_grid_points_are_their_own_neighbours(name: str) -> None:
    _, value, zero = values(FORMATS[name])
    low, high = FORMATS[name].neighbours(value, zero)
    assert torch.equal(low, value)
    assert torch.equal(high, value)


@pytest.mark.parametrize("name", NAMES)
def test_neighbours_are_next_to_each_other_around_a_value(name: str) -> None:
    code, value, zero = values(FORMATS[name])
    if len(value) > 600:  # 16-bit grids: the ends, the middle and the subnormal numbers
        pick = torch.cat([torch.arange(0, 9), torch.arange(len(value) // 2 - 200, len(value) // 2 + 200)])
        pick = torch.cat([pick, torch.arange(len(value) - 9, len(value) - 1)])
    else:
        pick = torch.arange(len(value) - 1)
    for share in (0.001, 0.5, 0.875):
        v = (value[pick].double() + share * (value[pick + 1].double() - value[pick].double())).float()
        low, high = FORMATS[name].neighbours(v, zero)
        assert torch.equal(FORMATS[name].encode(low, zero), code[pick])
        assert torch.equal(FORMATS[name].encode(high, zero), code[pick + 1])


@pytest.mark.parametrize("name", [name for name in NAMES if name != "bf16"])  # bf16 reaches as far as float32
def test_values_beyond_the_grid_are_clamped(name: str) -> None:
    _, value, zero = values(FORMATS[name])
    ends = torch.stack([value[0], value[-1]])
    for factor in (1 + 2.0**-23, 1.5):
        low, high = FORMATS[name].neighbours(ends * factor, zero)
        assert torch.equal(low, ends)
        assert torch.equal(high, ends)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("fp8-e4m3", torch.float8_e4m3fn),
        ("fp8-e5m2", torch.float8_e5m2),
        ("bf16", torch.bfloat16),
        ("fp16", torch.float16),
    ],
)
def test_minifloats_are_those_of_torch(name: str, dtype: torch.dtype) -> None:
    form = FORMATS[name]
    assert isinstance(form, Minifloat)
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(400, generator=generator) * torch.exp2(torch.randint(-18, 9, (400,), generator=generator))
    _, grid, _ = values(form)
    middle = len(grid) // 2 + torch.arange(-40, 40)
    ties = (grid[middle] + grid[middle + 1]) / 2
    v = torch.cat([v, ties, grid[middle]]).clamp(-form.largest, form.largest)
    assert torch.equal(nearest(v, form), v.to(dtype).float() + 0.0)
    assert torch.equal(grid.to(dtype).float(), grid)  # the finite values are the same
    assert form.largest == torch.finfo(dtype).max
    finite = torch.arange(2**form.bits, dtype=torch.int32 if form.bits == 16 else torch.uint8)
    finite = finite.to(torch.int16 if form.bits == 16 else torch.uint8).view(dtype).float()
    assert len(grid) == int(torch.isfinite(finite).sum()) - 1  # torch has two zeros


@pytest.mark.parametrize(
    ("name", "positive"),
    [
        ("fp4-e2m1", [0.5, 1, 1.5, 2, 3, 4, 6]),
        ("fp6-e2m3", [i / 8 for i in range(1, 16)] + [2 + i / 4 for i in range(8)] + [4 + i / 2 for i in range(8)]),
        (
            "fp6-e3m2",
            [i / 16 for i in range(1, 4)] + [2.0**e * (1 + i / 4) for e in range(-2, 5) for i in range(4)],
        ),
    ],
)
def test_narrow_minifloats_are_those_of_the_specification(name: str, positive: list[float]) -> None:
    _, value, _ = values(FORMATS[name])
    assert value.tolist() == [-x for x in reversed(positive)] + [0.0, *positive]


@pytest.mark.parametrize("bits", range(2, 9))
def test_integers_are_half_to_even_like_numpy(bits: int) -> None:
    form = Integer(bits)
    v = torch.cat([torch.arange(-form.top, form.top + 0.25, 0.25), torch.linspace(-form.top, form.top, 101)])
    assert nearest(v, form).tolist() == np.round(v.numpy()).tolist()


def test_nf4_levels_are_the_published_ones() -> None:
    _, value, _ = values(FORMATS["nf4"])
    torch.testing.assert_close(value, torch.tensor(PUBLISHED_NF4), rtol=0, atol=1e-6)
    assert value[7] == 0
    assert isinstance(FORMATS["nf4"], NormalFloat)


@pytest.mark.parametrize("name", NAMES)
def test_scales_cover_a_group_and_zero_groups_get_one(name: str) -> None:
    form = FORMATS[name]
    low, high = torch.tensor([-3.0, 0.0, -1e-45, 0.0]), torch.tensor([1.0, 0.0, 0.0, 2.0])
    scale, zero = form.scale(low, high)
    assert scale[1] == 1
    assert bool((scale > 0).all())
    assert bool(torch.isfinite(low / scale).all())
    top = form.decode(torch.tensor(2**form.bits - 1), torch.tensor(0.0)) if zero is not None else values(form)[1][-1]
    reach = torch.maximum(-low, high) if zero is None else high - low
    covered = reach <= scale * top * (1 + 1e-6) if form.bits < 16 else scale == 1
    assert bool(covered.all())
    if form.bits < 16 and zero is None:
        assert float(scale[0] * top) == pytest.approx(3.0)


@pytest.mark.parametrize("bits", range(2, 9))
def test_asymmetric_grids_hold_zero_and_clip_nothing(bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    ends = torch.randn(2000, 2, generator=generator) * torch.exp2(torch.randint(-9, 9, (2000, 2), generator=generator))
    ends[0], ends[1], ends[2] = torch.tensor([1.0, 2.0]), torch.tensor([-2.0, -1.0]), torch.tensor([-1e-6, 1.0])
    low, high = ends.min(dim=1).values, ends.max(dim=1).values
    form = Integer(bits, symmetric=False)
    scale, zero = form.scale(low, high)
    assert zero is not None
    assert torch.equal(zero, zero.round())
    assert float(zero.min()) >= 0
    assert float(zero.max()) <= form.top
    smallest, largest = form.limits(zero)
    assert bool((low / scale >= smallest * (1 + 1e-6)).all())
    assert bool((high / scale <= largest * (1 + 1e-6)).all())
    code = form.encode(torch.zeros(2000), zero)
    assert torch.equal(form.decode(code, zero), torch.zeros(2000))


def test_asymmetric_scale_by_hand() -> None:
    """[-1, 5] on 2 bits: step 2, zero point round(1/2) = 0 would clip -1, so it is 1; then 5 needs 2.5 per step."""
    scale, zero = Integer(2, symmetric=False).scale(torch.tensor([-1.0]), torch.tensor([5.0]))
    assert zero is not None
    assert (scale.tolist(), zero.tolist()) == ([2.5], [1.0])


def test_names_are_found_and_wrong_ones_are_answered() -> None:
    assert number_format("INT-5") is FORMATS["int5"]
    assert number_format("FP8_E4M3") is FORMATS["fp8-e4m3"]
    assert number_format(Integer(3)) == Integer(3)
    assert Integer(4, symmetric=False).name == "int4-asymmetric"
    assert [FORMATS[name].name for name in NAMES] == NAMES
    with pytest.raises(ValueError, match=r"'int9'; did you mean int"):
        number_format("int9")
    with pytest.raises(ValueError, match=r"unknown number format '~'; did you mean int2,"):
        number_format("~")
    for bits in (1, 9):
        with pytest.raises(ValueError, match=f"got {bits}"):
            Integer(bits)
