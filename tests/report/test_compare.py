"""compare: rows on both sides, too few of them, and arms that cannot be drawn are told before any prediction."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pluria.core.errors import DataError, RecipeError
from pluria.report.compare import compare

ARMS = [{"method": "low_precision", "format": "int4", "members": 2}]


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()


def rows(count: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(count, 6, generator=random), torch.arange(count) % 3


def test_the_same_rows_give_no_figures() -> None:
    x, y = rows()
    with pytest.raises(DataError, match="40 of the 40 rows of figures are also in calibration"):
        compare(network(), [(x, y)], [(x.clone(), y.clone())], arms=ARMS)


def test_rows_that_stand_on_both_sides_are_told() -> None:
    x, y = rows()
    other, _ = rows(seed=1)
    other[:4] = x[:4]
    found = compare(network(), [(x[:30], y[:30]), (x[30:], y[30:])], [(other, y)], arms=ARMS)
    told = "4 of the 40 rows of figures are also in calibration: what they add to the figures is too good"
    assert found.figures["notes"] == [told]
    assert found.figures["rows"]["twice"] == 4
    assert "every figure comes from 40 rows, 4 of them calibration rows too." in " ".join(str(found).split())


def test_one_row_is_no_figure() -> None:
    with pytest.raises(DataError, match="figures: 20 labels are the least that figures can come from, and it has 1"):
        compare(network(), [rows()], [rows(1, seed=1)], arms=ARMS)


def test_what_feedback_does_not_reach_is_told() -> None:
    class Mixed(nn.Module):
        """A layer whose weight is used outside it."""

        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.linear(self.body(x).relu(), self.head.weight)

    arms = [{"method": "compensated", "format": "int4", "members": 2}]
    found = compare(Mixed().eval(), [rows()], [rows(seed=1)], arms=arms)
    assert found.figures["notes"] == ["network: rounded without feedback, for their inputs are not seen: head.weight"]


@pytest.mark.parametrize(("changes", "said"), [({"damping": -1.0}, "damping is zero"), ({"format": "nf4"}, "integers")])
def test_mistakes_name_the_arm_that_was_asked_for(changes: dict[str, object], said: str) -> None:
    arms = [{"method": "compensated", "format": "int4", "members": 2, **changes}]
    with pytest.raises(RecipeError, match=said) as caught:
        compare(network(), [rows()], [rows(seed=1)], arms=arms)
    assert "GPTQ" not in str(caught.value)
