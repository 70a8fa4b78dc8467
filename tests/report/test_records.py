"""Rows of numbers: known cells, and when an arm is marked."""

from __future__ import annotations

from typing import Any

import pytest

from pluria.report.records import COLUMNS, best, by_operations, digits, equal_bits, records, seconds, verdict


def test_row_of_full_precision(figures: dict[str, Any]) -> None:
    arm, record = figures["arms"][0], records(figures)[0]
    assert record["name"] == "full precision"
    assert record["role"] == "control"
    assert record["nll"] == arm["scores"]["nll"]
    assert record["ece_scaled"] == arm["scaled"]["ece"]
    assert record["weight_members"] == pytest.approx(32.0, abs=0.1)
    assert record["difference"] is None
    assert record["ambiguity"] is None
    assert record["nll_scaled_sd"] is None


def test_row_of_the_main_arm(figures: dict[str, Any]) -> None:
    record = next(record for record in records(figures) if record["role"] == "main")
    arm = next(arm for arm in figures["arms"] if arm["name"] == figures["main"])
    assert record["difference_low"] == arm["difference"]["nll_scaled"]["low"]
    assert record["disagreement"] == arm["diversity"]["disagreement"]
    assert record["nll_scaled_sd"] == arm["spread"]["scaled"]["nll"]
    assert record["weight_planes"] == arm["cost"]["bits_planes"] / arm["cost"]["parameters"]
    assert record["weight_planes"] < record["weight_members"]


def test_cells_are_what_they_show() -> None:
    record = {
        "nll_scaled": 0.07712, "nll_scaled_sd": 0.00063, "difference": -0.00321, "difference_low": -0.0184,
        "difference_high": 0.0102, "error": 0.02513, "seconds": 2.0273, "forwards": 8, "ambiguity": None,
        "flops": 660_100_000,
    }  # fmt: skip
    shown = {column.key: column.text(record) for column in COLUMNS if column.key in record}
    assert shown == {
        "nll_scaled": "0.0771 ±0.0006", "difference": "−0.0032", "difference_low": "[−0.0184, +0.0102]",
        "error": "2.51%", "seconds": "2.03", "forwards": "8", "ambiguity": "–", "flops": "0.660",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0337, "0.034"), (2.0273, "2.03"), (31.46, "31.5"), (1234.5, "1234"), (0.0, "0.000")]
)
def test_seconds(value: float, shown: str) -> None:
    assert seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0825, "0.0825"), (9.996, "10.0"), (1316.2, "1316"), (1.5e-5, "0.0000150"), (0.0, "0.00")]
)
def test_digits(value: float, shown: str) -> None:
    assert digits(value) == shown


@pytest.mark.parametrize(
    ("low", "high", "said"), [(-2.0, -1.0, "better"), (1.0, 2.0, "worse"), (-1.0, 1.0, "same"), (0.0, 0.0, "same")]
)
def test_verdict(low: float, high: float, said: str) -> None:
    assert verdict({"low": low, "high": high}) == said


def _arms(*gaps: tuple[int, float, float], work: tuple[int, ...] = ()) -> dict[str, Any]:
    """Figures with nothing but forwards, operations and intervals."""
    costs = [{"forwards": k, "flops": flops} for (k, _, _), flops in zip(gaps, work or [0] * len(gaps), strict=True)]
    return {
        "arms": [
            {"name": str(i), "cost": cost, "difference": {"nll_scaled": {"low": low, "high": high}}}
            for i, (cost, (_, low, high)) in enumerate(zip(costs, gaps, strict=True))
        ]
    }


def test_nothing_is_marked_inside_the_noise() -> None:
    assert best(_arms((1, 0.0, 0.0), (8, -0.02, 0.01), (8, 0.01, 0.02))) == frozenset()


def test_arms_that_cannot_be_told_apart_are_all_marked() -> None:
    assert best(_arms((1, 0.0, 0.0), (8, -0.03, -0.01), (8, -0.04, -0.02))) == {"1", "2"}


def test_a_cheaper_arm_that_is_surely_better_takes_the_mark() -> None:
    assert best(_arms((1, 0.0, 0.0), (2, -0.09, -0.07), (8, -0.03, -0.01))) == {"1"}


def test_a_dearer_arm_does_not_take_the_mark_of_a_cheaper_one() -> None:
    assert best(_arms((1, 0.0, 0.0), (2, -0.03, -0.01), (8, -0.09, -0.07))) == {"1", "2"}


def test_operations_count_where_forwards_differ_in_their_work() -> None:
    gaps = (1, 0.0, 0.0), (2, -0.09, -0.07), (3, -0.03, -0.01)
    assert best(_arms(*gaps, work=(10, 20, 30))) == {"1"}
    assert best(_arms(*gaps, work=(10, 60, 30))) == {"1", "2"}, "two forwards of a large network cost more than three"
    assert not by_operations(_arms(*gaps, work=(10, 20, 30)))
    assert not by_operations(_arms(*gaps, work=(10, 60, 0))), "one is not known"


def test_single_models_of_several_networks_are_members(several: dict[str, Any]) -> None:
    found = {record["name"]: record for record in records(several)}
    assert found["full precision of narrow + wide"]["disagreement"] is not None
    assert found["full precision of wide"]["disagreement"] is None
    parts = [found[f"full precision of {name}"]["flops"] for name in ("narrow", "wide")]
    assert found["full precision of narrow + wide"]["flops"] == sum(parts) > 0


def test_equal_bits_names_singles(figures: dict[str, Any]) -> None:
    singles = {arm["name"] for arm in figures["arms"] if arm["members"] == 1}
    assert equal_bits(figures)
    assert equal_bits(figures) <= singles
    assert equal_bits({}) == frozenset()
