"""Philox against published known answers, and words that depend on their address only."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch

from pluria.numbers.key import NORMAL, ROUNDING, Key
from pluria.numbers.philox import ELEMENTS, normals, philox4x32, uniforms, words

ONES = 0xFFFFFFFF
KNOWN = [
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers(counter: tuple[int, ...], key: tuple[int, int], answer: str) -> None:
    c0, c1, c2, c3 = (torch.tensor([c]) for c in counter)
    assert " ".join(f"{int(word):08x}" for word in philox4x32((c0, c1, c2, c3), key)) == answer


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN)
def test_known_answers_of_the_loop(
    counter: tuple[int, ...], key: tuple[int, int], answer: str, interpreted: object
) -> None:
    from pluria.numbers import compiled

    address = np.array([*key, *counter[1:]], np.uint64)
    for loops in (compiled, interpreted):
        out = np.empty(8, np.uint32)
        loops.fill_words(out, np.uint64(counter[0]), address)  # type: ignore[attr-defined]
        assert " ".join(f"{int(word):08x}" for word in out[:4]) == answer


def test_words_are_the_counters_in_order() -> None:
    got = words(Key(5 + (9 << 32)), tensor=3, group=8, stream=2, start=8, stop=12)
    want = philox4x32((torch.tensor([2]), torch.tensor([3]), torch.tensor([8]), torch.tensor([2])), (5, 9))
    assert got.tolist() == [int(word) for word in want]


def test_words_of_the_loop_are_those_of_torch(torch_only: Callable[[], AbstractContextManager[None]]) -> None:
    for start, stop in ((0, 1), (0, 1000), (5, 18), (6, 7), (2**33 + 3, 2**33 + 90), (ELEMENTS - 3, ELEMENTS), (4, 4)):
        got = words(Key(2**64 - 1), tensor=2**32 - 1, group=7, stream=NORMAL, start=start, stop=stop)
        with torch_only():
            want = words(Key(2**64 - 1), tensor=2**32 - 1, group=7, stream=NORMAL, start=start, stop=stop)
        assert got.dtype == want.dtype == torch.int64
        assert torch.equal(got, want)


def test_a_group_may_be_a_tensor() -> None:
    at = {"tensor": 1, "stream": ROUNDING, "start": 3, "stop": 20}
    assert torch.equal(words(Key(1), group=torch.tensor(6), **at), words(Key(1), group=6, **at))


def test_words_do_not_depend_on_where_a_range_starts_or_stops() -> None:
    whole = words(Key(3), tensor=1, group=0, stream=ROUNDING, start=0, stop=64)
    for start in range(9):
        for stop in (start, start + 1, start + 6, 64):
            part = words(Key(3), tensor=1, group=0, stream=ROUNDING, start=start, stop=stop)
            assert torch.equal(part, whole[start:stop])


def test_every_part_of_the_address_matters() -> None:
    base = {"tensor": 1, "group": 2, "stream": 0, "start": 0, "stop": 8}
    first = words(Key(3), **base)
    for other in ({"tensor": 2}, {"group": 3}, {"stream": 1}):
        assert not torch.equal(words(Key(3), **{**base, **other}), first)
    assert not torch.equal(words(Key(3 + (1 << 40)), **base), first)


@pytest.mark.parametrize(("start", "stop"), [(-1, 4), (5, 4), (0, ELEMENTS + 1)])
def test_ranges_outside_a_tensor_are_refused(start: int, stop: int) -> None:
    with pytest.raises(ValueError, match="elements lie in"):
        words(Key(0), tensor=0, group=0, stream=0, start=start, stop=stop)


def test_uniforms_are_24_bits_below_one() -> None:
    assert uniforms(torch.tensor([0, 255, 256, 2**32 - 1])).tolist() == [0.0, 0.0, 2.0**-24, 1 - 2.0**-24]
    u = uniforms(words(Key(1), tensor=0, group=0, stream=ROUNDING, start=0, stop=40_000)).double()
    counts = torch.histc(u, 20, 0, 1)
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 43.8  # chi-square, 19 degrees of freedom, one in a thousand
    assert abs(float(u.mean()) - 0.5) < 4 / 12**0.5 / 200


def test_normals_are_box_and_muller_by_hand() -> None:
    word = words(Key(4), tensor=9, group=1, stream=NORMAL, start=0, stop=2)
    u = [((int(w) >> 8) + 0.5) / 2**24 for w in word]
    radius = (-2 * np.log(u[0])) ** 0.5
    want = [radius * np.cos(2 * np.pi * u[1]), radius * np.sin(2 * np.pi * u[1])]
    got = normals(Key(4), tensor=9, group=1, stream=NORMAL, start=0, stop=2)
    torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float32))


def test_normals_are_standard_and_do_not_depend_on_the_range() -> None:
    at = {"tensor": 9, "group": 1, "stream": NORMAL}
    whole = normals(Key(4), start=0, stop=20_001, **at)
    assert torch.equal(normals(Key(4), start=3, stop=10, **at), whole[3:10])
    assert abs(float(whole.mean())) < 4 / 20_001**0.5
    assert abs(float(whole.square().mean()) - 1) < 4 * (2 / 20_001) ** 0.5
    assert abs(float((whole[0:-1:2] * whole[1::2]).mean())) < 4 / 10_000**0.5
