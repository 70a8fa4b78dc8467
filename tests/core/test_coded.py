"""Coded: both forms are the rounded members again, bit for bit, and take the bits they say."""

import pytest

from core.families import rounded, stacked
from core.laws import same_bits, write
from pluria.core.coded import pack_members, pack_planes
from pluria.core.family import Bits
from pluria.numbers.format import FORMATS

MEMBERS = (4, 0, 9, 130)


@pytest.mark.parametrize("form", [pack_members, pack_planes])
@pytest.mark.parametrize("format", FORMATS)
def test_packed_members_are_the_members(form, format: str) -> None:
    family = rounded(format=format)
    coded = form(family, MEMBERS)
    assert coded.size == len(MEMBERS)
    assert coded.dtype == family.dtype
    for number, member in enumerate(MEMBERS):
        assert same_bits(write(coded, number), write(family, member))


@pytest.mark.parametrize("granularity", ["tensor", "channel", 3])
def test_packed_at_any_granularity(granularity: object) -> None:
    family = rounded(granularity=granularity, format="int4-asymmetric")
    for form in (pack_members, pack_planes):
        assert same_bits(write(form(family, MEMBERS), 2), write(family, MEMBERS[2]))


def test_several_bases_have_a_grid_each() -> None:
    family = rounded(stacked(), bases=(3, 1))
    coded = pack_members(family, (0, 1, 2, 3))
    assert len(coded.grids) == 4
    assert all(same_bits(write(coded, member), write(family, member)) for member in range(4))
    alone = pack_members(family, (1,))
    assert same_bits(write(alone, 0), write(family, 1))


def test_nearest_members_can_be_packed() -> None:
    family = rounded(coupling=None)
    assert same_bits(write(pack_members(family, (0,)), 0), write(family, 0))


@pytest.mark.parametrize("family", [rounded(coupling=None), rounded(stacked(), bases=(0, 1))])
def test_planes_need_one_floor(family) -> None:
    with pytest.raises(ValueError, match="one base"):
        pack_planes(family, (0, 1))


def test_zero_points_are_kept_as_floats() -> None:
    own = pack_members(rounded(format="int4-asymmetric"), range(2)).bits(range(2))
    assert own.file == 2 * 4 * 48 + 4 * (32 + 32)
    assert own.members == 2 * (4 * 48 + 4 * 40)


def test_bits_by_hand() -> None:
    # 48 weights of 5 bits are 30 bytes; 4 scales of 32 bits; a plane of 48 bits is 6 bytes.
    own = pack_members(rounded(), range(3)).bits(range(3))
    # Codes of their own do not say that they have a floor in common.
    assert own == Bits(3 * 240 + 128, 3 * (240 + 128), 3 * (240 + 128))
    planes = pack_planes(rounded(), range(3)).bits(range(3))
    assert planes == Bits(240 + 3 * 48 + 128, 3 * (240 + 128), (5 + 3) * 48 + 128)


def test_a_plane_costs_one_bit_more_for_each_weight() -> None:
    few, many = (pack_planes(rounded(), range(count)).bits(range(count)) for count in (4, 8))
    assert many.file - few.file == 4 * 48
    assert rounded().bits(range(4)).planes == few.planes
