"""Packed codes: round trips for every width, bytes fixed forever, and what is refused."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pluria.numbers import packing
from pluria.numbers.packing import pack, unpack

GOLDEN = {
    1: ([1, 0, 1, 1, 0, 0, 0, 1, 1], "8d01"),
    2: ([1, 2, 3, 0, 2], "3902"),
    3: ([1, 2, 3, 4, 5, 6, 7, 0, 7], "d1581f07"),
    4: ([1, 2, 15], "210f"),
    5: ([1, 31, 0, 16], "e10308"),
    6: ([63, 1, 32], "7f0002"),
    7: ([127, 0, 65], "7f4010"),
    8: ([0, 255, 7], "00ff07"),
    11: ([2047, 0, 1], "ff07400000"),
    16: ([1, 65535, 256], "0100ffff0001"),
}


@pytest.mark.parametrize("bits", GOLDEN)
def test_golden_bytes(bits: int) -> None:
    codes, stream = GOLDEN[bits]
    packed = pack(torch.tensor(codes), bits)
    assert bytes(packed.tolist()).hex() == stream
    assert unpack(packed, bits, len(codes)).tolist() == codes


@pytest.mark.parametrize("bits", range(1, 17))
def test_bits_lie_where_the_docstring_says(bits: int) -> None:
    codes = torch.randint(2**bits, (37,), generator=torch.Generator().manual_seed(bits))
    number = sum(int(code) << (i * bits) for i, code in enumerate(codes))
    assert bytes(pack(codes, bits).tolist()) == number.to_bytes((37 * bits + 7) // 8, "little")


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_round_trip(data: st.DataObject) -> None:
    bits = data.draw(st.integers(1, 16))
    codes = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=40))
    packed = pack(torch.tensor(codes, dtype=torch.int64), bits)
    assert packed.dtype == torch.uint8
    assert len(packed) == (len(codes) * bits + 7) // 8
    assert unpack(packed, bits, len(codes)).tolist() == codes


@pytest.mark.parametrize("bits", [1, 3, 5, 16])
def test_chunks_join_without_a_seam(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = torch.randint(2**bits, (61,), generator=torch.Generator().manual_seed(bits))
    whole = pack(codes, bits)
    monkeypatch.setattr(packing, "CHUNK", 16)
    assert torch.equal(pack(codes, bits), whole)
    assert torch.equal(unpack(whole, bits, 61), codes)


def test_codes_out_of_range_are_refused() -> None:
    for codes in ([0, 8], [-1, 2]):
        with pytest.raises(ValueError, match=r"codes of 3 bits lie in 0\.\.7; got"):
            pack(torch.tensor(codes), 3)


def test_a_stream_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="5 codes of 3 bits take 2 bytes; got 3"):
        unpack(torch.zeros(3, dtype=torch.uint8), 3, 5)
