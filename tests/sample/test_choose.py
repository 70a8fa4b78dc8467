"""Choosing: the first within the tolerance, the best otherwise."""

import pytest

from pluria.sample import Choice, choose_format

VALUES = {"int2": 0.9, "int3": 0.2, "int4": 0.05, "int5": 0.05, "int6": 0.01}


def test_the_first_within_the_tolerance_and_no_more_is_evaluated() -> None:
    asked: list[str] = []

    def evaluate(name: str) -> float:
        asked.append(name)
        return VALUES[name]

    assert choose_format(list(VALUES), evaluate, tolerance=0.1) == ("int4", Choice(2, (0.9, 0.2, 0.05), True))
    assert asked == ["int2", "int3", "int4"]


def test_a_value_equal_to_the_tolerance_is_within() -> None:
    assert choose_format(list(VALUES), VALUES.__getitem__, tolerance=0.2)[0] == "int3"


def test_none_within_the_tolerance_gives_the_smallest_and_says_so() -> None:
    name, choice = choose_format(list(VALUES), VALUES.__getitem__, tolerance=0.001)
    assert name == "int6"
    assert choice == Choice(4, tuple(VALUES.values()), False)


def test_the_best_of_all_and_ties_go_to_fewer_bits() -> None:
    name, choice = choose_format(["int4", "int5"], VALUES.__getitem__)
    assert name == "int4"
    assert choice == Choice(0, (0.05, 0.05), True)
    assert choose_format(list(VALUES), VALUES.__getitem__)[0] == "int6"


def test_refused() -> None:
    with pytest.raises(ValueError, match="no candidates"):
        choose_format([], float)
    with pytest.raises(ValueError, match="candidate 'int4' evaluates to NaN"):
        choose_format(["int4"], lambda _: float("nan"))
