"""What an ensemble costs in bits: ties and shared parts once, and a sum by hand."""

from dataclasses import replace

import torch

from core.families import NAME, SHAPE, normal, rounded, stacked
from pluria.core.ensemble import Ensemble
from pluria.core.family import Bits, Joined, Shared
from pluria.core.rounded import Rounded
from pluria.numbers.grid import layout
from pluria.numbers.key import Key


def test_tied_tensors_cost_once() -> None:
    tied = rounded()
    alone = Ensemble({NAME: tied}, range_of(3))
    both = Ensemble({NAME: tied, "tied": tied}, range_of(3))
    assert both.bits() == alone.bits() == tied.bits([0, 1, 2])
    apart = Ensemble({NAME: tied, "other": rounded()}, range_of(3))
    twice = tied.bits([0, 1, 2]) + tied.bits([0, 1, 2])
    assert apart.bits() == replace(twice, file=twice.file - 64), "one key serves both"


def test_a_union_keeps_what_its_parts_share_once_and_what_no_member_uses_too() -> None:
    base = Shared(normal(*SHAPE))
    both = Joined((rounded(base), rounded(base, key=Key(9)), stacked()), ((0, 1), (5,), (2,)))
    one = 48 * 32
    assert Ensemble({NAME: both}, (0, 1, 2)).bits().file == one + 5 * one + 2 * 64


def range_of(count: int) -> tuple[int, ...]:
    return tuple(range(count))


def test_bits_by_hand() -> None:
    # A matrix of 2 x 3 in int4 with two scales, its bias in float32, a counter in int64.
    ensemble = Ensemble(
        {"w": rounded_matrix(), "b": Shared(torch.zeros(2)), "n": Shared(torch.tensor(0))}, range_of(10)
    )
    rest = 2 * 32 + 64
    assert ensemble.bits() == Bits(6 * 32 + 64 + rest, 10 * (4 * 6 + 64) + rest, (4 + 10) * 6 + 64 + rest)


def rounded_matrix() -> Rounded:
    return rounded(Shared(normal(2, 3)), format="int4", layout=layout((2, 3)))
