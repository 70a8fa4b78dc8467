"""Small tables: what is marked, how a mean is told, Markdown."""

from __future__ import annotations

from typing import Any

import pytest

from pluria.report.sheet import Cell, Column, Sheet, as_markdown, extreme, spread


def _cells(*values: float | None) -> list[Cell]:
    return [Cell(str(value), value=value) for value in values]


@pytest.mark.parametrize(
    ("values", "choose", "marked"),
    [
        ((0.3, 0.1, 0.2), min, [False, True, False]),
        ((0.3, 0.1, None), max, [True, False, False]),
        ((0.1, 0.1, 0.2), min, [True, True, False]),
        ((0.1, 0.1), min, [False, False]),
        ((0.1, None), min, [False, False]),
        ((), min, []),
    ],
)
def test_the_best_is_marked_where_there_is_a_choice(values: tuple[float], choose: Any, marked: list[bool]) -> None:
    assert [cell.marked for cell in extreme(_cells(*values), choose)] == marked


def test_means_with_their_deviations() -> None:
    assert spread(-0.5, 0.0, 3) == "−0.500 ±0.000"
    assert spread(12.345, 1.26, 1, "%") == "12.3 ±1.3%"


def test_rows_groups_and_markdown() -> None:
    columns = (
        Column("a|b", "NLL", "raw", (Cell("1", "2", marked=True), Cell())),
        Column("a|b", "error", "", (Cell("3%"), Cell("4%"))),
        Column("c", "error", "", (Cell("5%"), Cell("6%"))),
    )
    arms = ({"name": "one"}, {"name": "<two>"})
    made = Sheet("id", "Title", "Sentence.", arms, columns, "<two>")
    assert made.groups == [("a|b", 2), ("c", 1)]
    assert [(name, main) for name, main, _ in made.rows] == [("one", False), ("<two>", True)]
    assert as_markdown(made).splitlines() == [
        "## Title", "", "Sentence.", "",
        "| arm | a\\|b: NLL (raw) | a\\|b: error | c: error |",
        "| --- | ---: | ---: | ---: |",
        "| one | **1** (2) | 3% | 5% |",
        "| &lt;two&gt; | – | 4% | 6% |",
    ]  # fmt: skip
