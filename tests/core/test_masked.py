"""Masks keep and drop what they say, and cost a bit for each weight."""

from __future__ import annotations

import pytest
import torch

from pluria.core.family import Shared, Stacked, block
from pluria.core.masked import masked


def test_by_hand() -> None:
    base = torch.tensor([[1.0, -2.0], [float("inf"), 4.0]])
    keep = torch.tensor([[[True, False], [False, True]], [[False, True], [False, False]]])
    family = masked(Shared(base), keep)
    assert block(family, [0, 1]).tolist() == [[[1.0, 0.0], [0.0, 4.0]], [[0.0, -2.0], [0.0, 0.0]]]
    assert torch.equal(family.mask(1), keep[1])
    assert family.bits([0, 1]).file == 4 * 32 + 2 * 8
    assert family.bits([0, 1]).members == 3 * 32
    assert family.bits([0, 1]).planes == 4 * (32 + 2)


def test_own_bases() -> None:
    values = torch.arange(8.0).view(2, 4) + 1
    family = masked(Stacked(values), torch.tensor([[True, True, False, False], [False, False, True, True]]))
    assert block(family, [1, 0]).tolist() == [[0, 0, 7, 8], [1, 2, 0, 0]]
    assert family.size == 2


def test_masks_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"masks are bool \[K, \*\(2, 3\)\]; got torch.bool \(1, 3, 2\)"):
        masked(Shared(torch.zeros(2, 3)), torch.ones(1, 3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="uint8"):
        masked(Shared(torch.zeros(3)), torch.ones(1, 3, dtype=torch.uint8))
