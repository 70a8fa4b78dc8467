"""The k largest magnitudes against a stable sort."""

from __future__ import annotations

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pluria.core.ensemble import stack
from pluria.merge import Rule, largest, leafwise
from pluria.merge import rule as rules
from pluria.numbers import kernel


def reference(values: Tensor, count: int) -> Tensor:
    """A mask of the `count` largest magnitudes; of equal ones, the first."""
    order = values.abs().double().argsort(descending=True, stable=True)
    return torch.zeros(values.numel(), dtype=torch.bool).index_fill_(0, order[:count], True)


def selected(values: Tensor, count: int, **options: int) -> Tensor:
    """Which elements a rule takes that marks the largest of the one member."""
    kept = Rule(
        lambda piece, found: found.mask(piece, piece.values)[0, 0].to(piece.values.dtype),
        largest(lambda piece: piece.values, lambda total: torch.tensor([[count]])),
    )
    return leafwise(stack([{"w": values}]), kept, **options)["w"].bool()


KINDS = {
    "spread": lambda draw: torch.randn(5000, generator=draw),
    "coarse": lambda draw: torch.randint(-3, 4, (5000,), generator=draw) * 2.0**-9,
    "equal": lambda draw: torch.full((5000,), -1.5),
    "zeros": lambda draw: torch.zeros(5000),
    "tiny": lambda draw: torch.randn(5000, generator=draw) * 1e-42,
    "near": lambda draw: 1 + torch.randint(0, 4, (5000,), generator=draw) * 2.0**-50,
}


@pytest.fixture(params=[64, 2**17])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Small pieces, so that thresholds lie across many of them."""
    monkeypatch.setattr("pluria.merge.pieces.BLOCK", request.param)
    return int(request.param)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [0, 1, 777, 2500, 4999, 5000, 6000])
def test_exactly_the_largest_are_taken(kind: str, count: int, dtype: torch.dtype, block: int) -> None:
    values = KINDS[kind](torch.Generator().manual_seed(3)).double().to(dtype)
    taken = selected(values, count)
    assert int(taken.sum()) == min(count, 5000)
    assert torch.equal(taken, reference(values, count))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-4, 4, width=16), min_size=1, max_size=40), st.integers(0, 41))
def test_short_tensors(values: list[float], count: int) -> None:
    held = torch.tensor(values, dtype=torch.float64)
    with patch("pluria.merge.pieces.BLOCK", 3):
        assert torch.equal(selected(held, count), reference(held, count))


def test_without_the_compiled_loop_it_is_the_same() -> None:
    values = KINDS["coarse"](torch.Generator().manual_seed(3)).bfloat16()
    with patch.object(kernel, "available", lambda device: False):
        plain = selected(values, 777)
    assert torch.equal(plain, selected(values, 777))


def test_several_selections_of_several_rows_at_once() -> None:
    draw = torch.Generator().manual_seed(4)
    two = [torch.randn(300, generator=draw).double(), torch.randint(-2, 3, (300,), generator=draw).double()]
    seen: list[Tensor] = []

    def keep(piece: rules.Piece, found: object) -> Tensor:
        seen.append(found.mask(piece, piece.values))  # type: ignore[attr-defined]
        return piece.values[0]

    counts = torch.tensor([[10, 20], [100, 150]])
    leafwise(stack([{"w": value} for value in two]), Rule(keep, largest(lambda p: p.values, lambda n: counts)))
    for j in range(2):
        for r in range(2):
            assert torch.equal(seen[0][j, r], reference(two[r], int(counts[j, r])))


def test_over_the_whole_model() -> None:
    draw = torch.Generator().manual_seed(5)
    held = {name: torch.randint(-9, 10, (70,), generator=draw).double() for name in ("b", "a", "c")}
    rule = Rule(
        lambda piece, found: found.mask(piece, piece.values)[0, 0].double(),
        largest(lambda piece: piece.values, lambda total: torch.tensor([[total // 3]])),
        scope="model",
    )
    with patch("pluria.merge.pieces.BLOCK", 16):
        made = leafwise(stack([held]), rule)
    together = torch.cat([made[name] for name in ("a", "b", "c")]).bool()
    assert torch.equal(together, reference(torch.cat([held[name] for name in ("a", "b", "c")]), 70))
