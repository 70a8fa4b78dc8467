"""Rounded: the values by hand, bases in turn, addresses."""

from dataclasses import replace

import torch

from core.families import NAME, SHAPE, gaussian, normal, rounded, stacked
from core.laws import same_bits, write
from pluria.core.family import Shared, Stacked
from pluria.core.rounded import Rounded, base_value
from pluria.numbers.coupling import address
from pluria.numbers.format import number_format
from pluria.numbers.grid import layout
from pluria.numbers.key import ROUNDING, Key, tensor_id
from pluria.numbers.philox import uniforms, words


def test_values_by_hand() -> None:
    # int3 has codes -3..3; the largest weight of each row gives the scales 1 and 2.
    value = torch.tensor([[3.0, 0.25, -1.5, 0.0], [-6.0, 1.0, 5.5, 2.0]])
    family = Rounded(
        Shared(value), "w", number_format("int3"), "channel", layout((2, 4)), Key(11), "independent", bases=(0,)
    )
    for member in range(20):
        word = words(Key(11), tensor=tensor_id("w"), group=member, stream=ROUNDING, start=0, stop=8)
        u = uniforms(word).view(2, 4)
        scale = torch.tensor([[1.0], [2.0]])
        v = value / scale
        wanted = scale * (v.floor() + (u < v - v.floor()).float())
        assert torch.equal(write(family, member), wanted)


def test_grid_points_never_move() -> None:
    value = torch.tensor([[3.0, 1.0, 0.0, -2.0], [0.0, 0.0, 0.0, 0.0]])
    family = Rounded(Shared(value), "w", number_format("int3"), "channel", layout((2, 4)), Key(1), "stratified")
    assert all(same_bits(write(family, member), value) for member in range(10))


def test_each_base_in_turn() -> None:
    family = rounded(stacked(), bases=(3, 1), format="int8")
    bases = stacked().values
    for member in range(6):
        base = bases[(3, 1)[member % 2]]
        gap = (write(family, member) - base).abs().amax(dim=(1, 2, 3))
        assert (gap <= base.abs().amax(dim=(1, 2, 3)) / 127 * 1.001).all()


def test_draws_of_a_base_are_coupled_among_themselves() -> None:
    family = rounded(stacked(), bases=(3, 1))
    for member in range(8):
        draw, base = divmod(member, 2)
        group, mask = address("stratified", draw)
        where = family.address(member)
        assert where is not None
        assert (where.group, where.mask, where.tensor) == (2 * group + base, mask, tensor_id(NAME))


def test_first_draw_of_two_bases_has_its_own_words() -> None:
    twice = Stacked(normal(1, *SHAPE).expand(2, *SHAPE).clone())
    family = rounded(twice, bases=(0, 1))
    assert not torch.equal(write(family, 0), write(family, 1))


def test_name_and_key_are_part_of_the_address() -> None:
    family = rounded(coupling="independent")
    other = Rounded(family.base, "other", family.format, "channel", family.layout, Key(3), "independent")
    keyed = rounded(coupling="independent", key=Key(4))
    assert not torch.equal(write(family, 0), write(other, 0))
    assert not torch.equal(write(family, 0), write(keyed, 0))


def test_memory_layout_of_the_base_does_not_matter() -> None:
    value = normal(*SHAPE)
    last = rounded(Shared(value.to(memory_format=torch.channels_last)))
    assert same_bits(write(last, 3), write(rounded(Shared(value)), 3))


def test_grids_are_fitted_once_for_each_base() -> None:
    family = rounded(stacked(), bases=(3, 1))
    grids = [family.parts(member)[1] for member in range(4)]
    assert grids[0] is grids[2]
    assert grids[1] is grids[3]
    assert not torch.equal(grids[0].scale, grids[1].scale)


def test_base_is_not_copied_where_it_is_held() -> None:
    shared, rows = Shared(normal(*SHAPE)), stacked()
    assert base_value(shared, 3) is shared.value
    assert base_value(rows, 2).data_ptr() == rows.values[2].data_ptr()
    assert same_bits(base_value(gaussian(), 2), write(gaussian(), 2))


def test_indexed_base() -> None:
    base = Stacked(normal(3, *SHAPE, seed=8), index=(7, 2, 4))
    assert same_bits(base_value(base, 4), base.values[2])


def test_noted_members_are_the_same_and_only_those_of_shared_words_are_noted() -> None:
    plain = rounded(Shared(normal(*SHAPE)))
    family = plain.noted()
    assert family is not plain
    assert family.noted() is family
    assert family.parts(0)[1] is plain.parts(0)[1]
    assert all(same_bits(write(family, member), write(plain, member)) for member in (0, 1, 17, 2))
    others = (replace(plain, coupling="independent"), replace(plain, coupling=None), rounded(stacked(), bases=(3, 1)))
    for other in (*others, replace(plain, format=number_format("nf4"))):
        assert other.noted() is other
