"""Factors are added or multiplied in, over a kernel where they have no places of their own."""

from __future__ import annotations

import pytest
import torch

from pluria.core.factored import Factored, spread
from pluria.core.family import Shared, Stacked, block


def test_lora_by_hand() -> None:
    base, left, right = torch.ones(2, 2), torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0, 4.0]]])
    family = Factored(Shared(base), left, right, "add")
    assert block(family, [0]).tolist() == [[[4.0, 5.0], [7.0, 9.0]]]
    assert family.bits([0]).file == (4 + 4) * 32


def test_batch_ensemble_by_hand_over_a_kernel() -> None:
    base = torch.arange(8.0).view(2, 2, 1, 2)
    left, right = torch.tensor([[[1.0], [-1.0]]]), torch.tensor([[[2.0, 0.5]]])
    found = block(Factored(Shared(base), left, right, "multiply"), [0])[0]
    assert torch.equal(found, base * torch.tensor([[2.0, 0.5], [-2.0, -0.5]]).view(2, 2, 1, 1))


def test_factors_of_one_change_nothing_and_zero_adds_nothing() -> None:
    base = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(
        block(Factored(Shared(base), torch.ones(1, 3, 1), torch.ones(1, 1, 4), "multiply"), [0])[0], base
    )
    assert torch.equal(block(Factored(Shared(base), torch.randn(1, 3, 2), torch.zeros(1, 2, 4), "add"), [0])[0], base)


def test_what_members_cost() -> None:
    shared = Factored(Shared(torch.zeros(8, 4)), torch.zeros(5, 8, 1), torch.zeros(5, 1, 4), "add")
    assert (shared.bits([0, 1]).members, shared.bits([0, 1]).planes) == (2 * 32 * 32, (32 + 2 * 12) * 32)
    own = Factored(Stacked(torch.zeros(2, 8, 4)), torch.zeros(5, 8, 1), torch.zeros(5, 1, 4), "add")
    assert own.bits([0, 1]).members == 2 * 32 * 32
    assert own.size == 2


def test_products_that_do_not_fit() -> None:
    assert spread(torch.Size([4, 3, 2, 2]), 12) == (4, 3, 2, 2)
    assert spread(torch.Size([4, 3, 2, 2]), 3) == (4, 3, 1, 1)
    with pytest.raises(ValueError, match=r"5 columns does not go with a base of shape \(4, 3\)"):
        spread(torch.Size([4, 3]), 5)
    with pytest.raises(ValueError, match="1 columns"):
        spread(torch.Size([4]), 1)
