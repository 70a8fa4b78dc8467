"""Laws every family keeps, as functions that raise AssertionError; `test_laws.py` shows that each of them can."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from pluria.core.family import Family, block, map_tensors


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Equality of shape, dtype and every bit, so that 0.0 is not -0.0."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    kinds = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    kind = kinds[one.element_size()]
    return torch.equal(one.contiguous().view(kind), other.contiguous().view(kind))


def write(family: Family, member: int, *, dtype: torch.dtype | None = None) -> Tensor:
    """One member in a fresh contiguous tensor that held something else."""
    out = torch.full(tuple(family.shape), 99, dtype=dtype or family.dtype)
    family.write(member, out)
    return out


def check_rows(family: Family, members: Sequence[int]) -> None:
    """Row j of a block depends on members[j] only, whatever the order and the company, and equals `write`."""
    alone = {member: write(family, member) for member in members}
    for order in (list(members), list(reversed(members)), [*members, *members], list(members)[1:]):
        rows = block(family, order)
        assert rows.shape == (len(order), *family.shape)
        assert rows.dtype == family.dtype
        assert all(same_bits(row, alone[member]) for row, member in zip(rows, order, strict=True))


def check_repeats(make: Callable[[], Family], members: Sequence[int]) -> None:
    """The same arguments give the same bits, whatever was drawn before."""
    torch.manual_seed(1)
    first = block(make(), members)
    torch.manual_seed(2)
    fresh = make()
    fresh.write(members[-1], torch.empty(fresh.shape, dtype=fresh.dtype))
    assert same_bits(first, block(fresh, members))


def check_quiet(family: Family, members: Sequence[int]) -> None:
    """Neither the global generator nor the family's own tensors are touched."""
    held: list[Tensor] = []
    map_tensors(family, lambda tensor: held.append(tensor) or tensor)
    before, state = [tensor.clone() for tensor in held], torch.random.get_rng_state()
    block(family, members)
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(same_bits(tensor, copy) for tensor, copy in zip(held, before, strict=True))


def outs(shape: torch.Size, dtype: torch.dtype) -> dict[str, Tensor]:
    """Tensors of one shape in every memory layout that a model's tensors have."""
    made = {"contiguous": torch.zeros(shape, dtype=dtype)}
    if len(shape):
        made["transposed"] = torch.zeros(tuple(reversed(shape)), dtype=dtype).permute(*reversed(range(len(shape))))
        made["strided"] = torch.zeros((*shape, 2), dtype=dtype)[..., 1]
    if len(shape) == 4:
        made["channels_last"] = torch.zeros(shape, dtype=dtype).to(memory_format=torch.channels_last)
    return made


def check_outs(family: Family, members: Sequence[int]) -> None:
    """`write` fills a tensor of any memory layout and dtype with the same values, rounded to that dtype."""
    kinds = [torch.float32, torch.bfloat16, torch.float64] if family.dtype.is_floating_point else [family.dtype]
    for member in members:
        wanted = write(family, member)
        for kind in kinds:
            for name, out in outs(family.shape, kind).items():
                family.write(member, out)
                # A wider tensor may keep more digits of the same value.
                assert same_bits(out.to(family.dtype).to(kind), wanted.to(kind)), (name, kind)


def check_range(family: Family) -> None:
    """Members that do not exist are refused."""
    out = torch.empty(family.shape, dtype=family.dtype)
    for member in (-1, *([] if family.size is None else [family.size])):
        with pytest.raises(IndexError, match=f"member {member} does not exist"):
            family.write(member, out)
