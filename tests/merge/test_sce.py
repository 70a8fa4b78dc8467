"""Known answers of SCE in its two forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from merge import slow
from merge.slow import coarse, of
from pluria.core.ensemble import stack
from pluria.merge import leafwise, sce

WEIGHTS = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


@pytest.mark.parametrize("spec", ["paper", "mergekit"])
@pytest.mark.parametrize("select", [0.1, 0.4, 1.0])
def test_sce_is_the_slow_form(select: float, spec: Any) -> None:
    a, b = coarse(3, 30, 8), coarse(3, 9, 9)
    for row in a:
        row[::3] = a[0][::3]  # a third of the places has no variance
    members, base = of(a, b)
    merged = leafwise(members.reweight(WEIGHTS), sce(select=select, spec=spec), base=base)
    for name, rows in (("a", a), ("b", b)):
        assert merged[name].tolist() == pytest.approx(slow.sce(rows, WEIGHTS.tolist(), select, spec)), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("select", "kept"),
    # What mergekit 0.1.5 gives: a share of the three places that differ, cut to a whole number.
    [(0.3, {}), (0.34, {11: 3.0}), (0.7, {9: 11.209486, 11: 3.0}), (0.9, {9: 11.209486, 11: 3.0})],
)
def test_sce_counts_as_mergekit_does(select: float, kept: dict[int, float], dtype: torch.dtype) -> None:
    rows = [[*range(1, 10), 10, 0, 0], [*range(1, 10), 12, 2, 3]]
    members = stack([{"w": torch.tensor(row, dtype=dtype)} for row in rows])
    base = {"w": torch.zeros(12, dtype=dtype)}
    merged = leafwise(members, sce(select=select, spec="mergekit"), base=base, dtype=torch.float32)["w"]
    assert merged.tolist() == pytest.approx([kept.get(i, 0.0) for i in range(12)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_members_that_agree_have_no_variance_whatever_rounds(dtype: torch.dtype) -> None:
    same = torch.randn(3000, generator=torch.Generator().manual_seed(0)).to(dtype)
    members = stack([{"w": torch.cat([same, torch.tensor([small], dtype=dtype)])} for small in (0.0, 1e-25, 2e-25)])
    base = {"w": torch.zeros(3001, dtype=dtype)}
    merged = leafwise(members, sce(select=0.999, spec="mergekit"), base=base)["w"]
    assert not merged.any()  # one place differs, and .999 of one is none
    merged = leafwise(members, sce(select=0.5), base=base)["w"]
    assert merged[-1] != 0  # the one that differs comes first, though the square of its difference is no number


def test_sce_of_members_that_do_not_move() -> None:
    members, base = of([[0.0, 0.0], [0.0, 0.0]], [[1.0], [1.0]])
    assert leafwise(members, sce(), base=base)["a"].tolist() == [0.0, 0.0]
    assert leafwise(members, sce(), base=base)["b"].tolist() == [1.0]
