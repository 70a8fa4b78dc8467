"""Laws of every family, and known answers of the plain ones."""

import pytest
import torch
from torch import Tensor

from core.families import MAKERS, NAME, SHAPE, affine, joined, normal, rounded, stacked
from core.laws import check_outs, check_quiet, check_range, check_repeats, check_rows, same_bits, write
from pluria.core.family import Affine, Bits, Family, Joined, Shared, Stacked, block, map_tensors, stored_bits
from pluria.core.rounded import Rounded

EVERY = pytest.mark.parametrize("kind", MAKERS)


@EVERY
def test_rows_depend_on_their_member_only(kind: str) -> None:
    make, members = MAKERS[kind]
    check_rows(make(), members)


@EVERY
def test_same_arguments_same_bits(kind: str) -> None:
    make, members = MAKERS[kind]
    check_repeats(make, members)


@EVERY
def test_generator_and_tensors_untouched(kind: str) -> None:
    make, members = MAKERS[kind]
    check_quiet(make(), members)


@EVERY
def test_any_layout_and_dtype_is_written(kind: str) -> None:
    make, members = MAKERS[kind]
    check_outs(make(), members)


@EVERY
def test_members_out_of_range_are_refused(kind: str) -> None:
    check_range(MAKERS[kind][0]())


@EVERY
def test_is_a_family(kind: str) -> None:
    family = MAKERS[kind][0]()
    assert isinstance(family, Family)
    assert family.size is None or family.size > max(MAKERS[kind][1])


@EVERY
def test_mapping_tensors_keeps_the_members(kind: str) -> None:
    make, members = MAKERS[kind]
    family = make()
    copy = map_tensors(family, Tensor.clone)
    assert type(copy) is type(family)
    assert same_bits(block(copy, members), block(family, members))


def test_mapping_tensors_leaves_caches_behind() -> None:
    family = rounded()
    family.write(0, torch.empty(SHAPE))
    doubled = map_tensors(family, lambda tensor: 2 * tensor)
    torch.testing.assert_close(write(doubled, 5), 2 * write(family, 5))
    assert doubled.name == NAME


def test_mapping_tensors_reaches_the_parts() -> None:
    moved: list[Tensor] = []
    map_tensors(joined(), lambda tensor: moved.append(tensor) or tensor)
    assert len(moved) == 4


def test_block_in_another_dtype() -> None:
    rows = block(stacked(), [1, 0], dtype=torch.bfloat16)
    assert same_bits(rows, stacked().values[[1, 0]].bfloat16())


def test_block_of_no_members() -> None:
    assert block(stacked(), []).shape == (0, *SHAPE)


def test_stacked_index() -> None:
    family = Stacked(torch.tensor([10.0, 20.0, 30.0]), index=(7, 2, 4))
    assert [float(write(family, member)) for member in (2, 4, 7)] == [20.0, 30.0, 10.0]
    assert family.size == 8
    with pytest.raises(IndexError, match=r"member 3 is not kept; members \(7, 2, 4\) are"):
        write(family, 3)
    with pytest.raises(ValueError, match="3 rows are indexed by 2"):
        Stacked(torch.zeros(3), index=(0, 1))


def test_affine_by_hand() -> None:
    family = Affine(
        torch.tensor([1.0, 2.0]), torch.tensor([[1.0, 0.0], [0.0, 10.0]]), torch.tensor([[0.5, -1.0]]).double()
    )
    assert write(family, 0).tolist() == [1.5, -8.0]


def test_affine_is_summed_in_float64() -> None:
    big = torch.tensor([2.0**30])
    family = Affine(torch.tensor([1.0]), torch.stack([big, -big]), torch.tensor([[1.0, 1.0]]).double())
    assert write(family, 0).item() == 1.0
    assert affine().dtype == torch.float32


def test_joined_places() -> None:
    family = joined()
    assert [family.place(member) for member in range(9)] == [
        *((0, 4), (0, 0)),
        *((1, 7), (1, 2), (1, 4)),
        *((2, 9), (2, 9)),
        *((3, 0), (3, 3)),
    ]
    assert same_bits(write(family, 5), write(family.parts[2], 9))


def test_union_of_unions() -> None:
    inner = joined()
    outer = Joined((inner, stacked()), ((8, 0), (3,)))
    assert same_bits(write(outer, 0), write(inner, 8))
    assert same_bits(write(outer, 1), write(stacked(), 4))
    assert same_bits(write(outer, 2), write(stacked(), 3))


ONE = 48 * 32


@pytest.mark.parametrize(
    ("family", "members", "wanted"),
    [
        (Shared(normal(*SHAPE)), (0, 1, 2), Bits(ONE, ONE, ONE)),
        (Shared(torch.tensor(3)), (0,), Bits(64, 64, 64)),
        (stacked(), (0, 1, 2), Bits(5 * ONE, 3 * ONE, 3 * ONE)),
        (affine(), (0, 1), Bits(ONE + 2 * ONE + 6 * 2 * 64, 2 * ONE, 2 * ONE)),
        # Five bits for each of 48 weights and 32 for each of 4 scales; a seed of 64 bits in the file.
        (rounded(), range(6), Bits(ONE + 64, 6 * (5 * 48 + 128), 5 * 48 + 128 + 6 * 48)),
        (rounded(), (2, 2), Bits(ONE + 64, 5 * 48 + 128, 5 * 48 + 128 + 48)),
        (rounded(coupling=None), range(6), Bits(ONE + 64, 5 * 48 + 128, 5 * 48 + 128)),
        (
            rounded(stacked(2), bases=(0, 1)),
            range(6),
            Bits(2 * ONE + 64, 6 * (5 * 48 + 128), 2 * (5 * 48 + 128) + 6 * 48),
        ),
        # Groups of 6 of 12 inputs: 8 scales, and as many zero points of 8 bits.
        (rounded(format="int4-asymmetric", granularity=6), (0,), Bits(ONE + 64, 4 * 48 + 8 * 40, 5 * 48 + 8 * 40)),
        (rounded(format="bf16"), (0, 1), Bits(ONE + 64, 2 * 16 * 48, 18 * 48)),
        (rounded(granularity="tensor"), (0,), Bits(ONE + 64, 5 * 48 + 32, 6 * 48 + 32)),
    ],
)
def test_bits_by_hand(family: Family, members: range, wanted: Bits) -> None:
    assert family.bits(list(members)) == wanted


def test_bits_of_a_union_are_those_of_its_parts() -> None:
    family = Joined((stacked(), rounded()), ((4, 0), (9, 8, 7)))
    assert family.bits([0, 2, 3, 4]) == stacked().bits([4]) + rounded().bits([9, 8, 7])
    assert family.bits([1]) == stacked().bits([0])


def test_stored_bits() -> None:
    assert stored_bits(torch.zeros(3, dtype=torch.bfloat16)) == 48
    assert Bits.same(2) + Bits(1, 2, 3) == Bits(3, 4, 5)
    assert isinstance(rounded(), Rounded)
