"""Votes over sampled answers, worked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from pluria.language import last_number, majority, majority_of_members, tidy


def test_hand_worked() -> None:
    found = majority(["Paris", "Lyon.", "the paris", None, "  "], [1, 3, 2.5, 3, 0.5])
    assert (found.answer, found.share, found.tied) == ("paris", 3.5 / 6.5, ("paris",))
    assert list(found.shares.items()) == [("paris", 3.5 / 6.5), ("lyon", 3 / 6.5)]
    assert found.abstained == pytest.approx(0.35)


def test_ties_go_to_the_first_given_and_are_told() -> None:
    found = majority(["b", "a", "c", "a", "b"])
    assert (found.answer, found.tied) == ("b", ("b", "a"))
    # Ten tenths and one do not differ, whatever the rounding.
    assert majority(["x", *["y"] * 10], [1.0, *[0.1] * 10]).tied == ("x", "y")
    assert majority(["x", *["y"] * 10], [0.9, *[0.1] * 10]).tied == ("y",)


def test_only_the_ratio_of_weights_counts() -> None:
    one, other = (majority(["a", "b"], weights) for weights in ([1, 2], [10, 20]))
    assert one == other
    assert majority(["a", "b"], [1, 0]).shares == {"a": 1.0}


def test_unequal_numbers_of_samples_give_nobody_more_votes() -> None:
    samples = [["4"] * 8, ["5"], ["5", "6", "5"]]
    found = majority_of_members(samples)
    assert found.answer == "5"
    assert found.shares == pytest.approx({"5": 5 / 9, "4": 3 / 9, "6": 1 / 9})
    assert majority([one for own in samples for one in own]).answer == "4"
    assert majority_of_members(samples, [5, 1, 1]).answer == "4"


def test_a_member_that_abstains_keeps_silent() -> None:
    found = majority_of_members([["a", None], ["b"]])
    assert (found.answer, found.abstained) == ("b", 0.25)
    assert found.shares == pytest.approx({"b": 2 / 3, "a": 1 / 3})


def test_a_normaliser_of_ones_own() -> None:
    answers = ["It is 1,200", "1200.0 euros", "3.50 or 3.5", "none"]
    found = majority(answers, normalise=last_number)
    assert found.shares == pytest.approx({"1200": 2 / 3, "3.5": 1 / 3})
    assert found.abstained == 0.25


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", "7"), ("-7.10", "-7.1"), ("007", "7"), ("0", "0"),
        ("-0.0", "0"), ("0.50", "0.5"), ("a 1 b 2,500 c", "2500"), ("12,34", "34"), ("no", None), ("", None),
        ("1e5", "100000"), ("it is 2.5E-3.", "0.0025"), (".5", "0.5"),
    ],
)  # fmt: skip
def test_last_number(text: str, number: str | None) -> None:
    assert last_number(text) == number


@pytest.mark.parametrize(
    ("text", "tidied"),
    [
        ("The", "the"),
        ("An  apple!", "apple"),
        ("\ufb01sh", "fish"),
        ('"Yes."', "yes"),
        ("...", ""),
        ("theory", "theory"),
    ],
)
def test_tidy(text: str, tidied: str) -> None:
    assert tidy(text) == tidied


@pytest.mark.parametrize(
    ("answers", "weights", "said"),
    [
        ([], None, "one answer or more"),
        (["", None, "?!"], None, "none of 3 answers"),
        (["a", ""], [0, 1], "none of 2 answers"),
        (["a", "b"], [1], "got 1 for 2"),
        (["a"], [-1], "not negative"),
        (["a"], [float("nan")], "finite"),
        (["a"], [0], "one is positive"),
    ],
)
def test_refused(answers: list[str | None], weights: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        majority(answers, weights)


@pytest.mark.parametrize("samples", [[["a"], []], ["ab", "c"]])
def test_members_without_a_list_of_samples_are_refused(samples: Any) -> None:
    with pytest.raises(ValueError, match="a list of one sample or more"):
        majority_of_members(samples)
