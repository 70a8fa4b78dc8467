"""Masks and factors that do not fit their base are refused before they are written, and so when they are read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.core.factored import Factored
from pluria.core.family import Family, Shared
from pluria.core.masked import Masked
from pluria.store import save

BASE = Shared(torch.ones(3, 4))


def factored(left: Tensor, right: Tensor, base: Family = BASE) -> Factored:
    return Factored(base, left, right, "add")


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (Masked(BASE, torch.zeros(2, 3, dtype=torch.uint8)), r"masks: 12 codes of 1 bits are uint8 \[K, 2\]"),
        (Masked(BASE, torch.zeros(2, 2)), "got torch.float32"),
        (factored(torch.ones(2, 3, 1), torch.ones(3, 1, 4)), r"factors are floats \[K, 3, r\] and \[K, r, columns\]"),
        (factored(torch.ones(2, 3, 1), torch.ones(2, 2, 4)), "factors are floats"),
        (factored(torch.ones(2, 4, 1), torch.ones(2, 1, 4)), "factors are floats"),
        (factored(torch.ones(2, 3, 1), torch.ones(2, 1, 5)), "a product of 5 columns does not go with a base"),
        (factored(torch.ones(2, 3, 1).long(), torch.ones(2, 1, 4)), "factors are floats"),
        (
            factored(torch.ones(2, 3, 1), torch.ones(2, 1, 4), Shared(torch.ones(3, 4).long())),
            "the base is torch.int64",
        ),
    ],
)
def test_parts_that_do_not_fit(family: Family, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        save(tmp_path / "e.pluria", Ensemble({"w": family}, (0,)))
    assert not list(tmp_path.iterdir())


def test_no_member_at_all(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="member 0 does not exist"):
        Ensemble({"w": Masked(BASE, torch.zeros(0, 2, dtype=torch.uint8))}, (0,))
