"""Entropy over meanings, worked by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from pluria.language import both_ways, meanings, same_words
from pluria.language.meanings import group

SAMPLES = [["Paris", "paris.", "Lyon", "the Paris"], ["Lyon", "Nice"]]


def entropy(*shares: float) -> float:
    return -sum(p * math.log(p) for p in shares if p > 0)


def test_discrete_by_hand() -> None:
    found = meanings(SAMPLES)
    assert found.meanings == ("Paris", "Lyon", "Nice")
    assert found.groups == ((0, 0, 1, 0), (1, 2))
    assert found.member_shares.tolist() == [[0.75, 0.25, 0], [0, 0.5, 0.5]]
    assert found.shares.tolist() == [0.375, 0.375, 0.25]
    assert found.entropy == pytest.approx(entropy(0.375, 0.375, 0.25))
    assert found.member_entropies.tolist() == pytest.approx([entropy(0.75, 0.25), math.log(2)])
    assert found.disagreement == pytest.approx(found.entropy - (entropy(0.75, 0.25) + math.log(2)) / 2)


def test_weights_of_members() -> None:
    found = meanings(SAMPLES, torch.tensor([6.0, 2.0]))
    assert found.shares.tolist() == pytest.approx([0.5625, 0.3125, 0.125])
    assert meanings(SAMPLES, torch.tensor([1.0, 0.0])).disagreement == 0


def test_by_likelihood_by_hand() -> None:
    # Likelihoods 4 : 2 : 1 : 1 and 3 : 1, whatever their scale.
    logs = [[math.log(v) - 900 for v in (4, 2, 1, 1)], [math.log(3), 0.0]]
    found = meanings(SAMPLES, log_probs=logs)
    assert found.member_shares[0].tolist() == pytest.approx([7 / 8, 1 / 8, 0])
    assert found.member_shares[1].tolist() == pytest.approx([0, 3 / 4, 1 / 4])
    assert found.entropy == pytest.approx(entropy(7 / 16, 7 / 16, 1 / 8))


def test_equal_likelihoods_are_counts() -> None:
    one, other = meanings(SAMPLES), meanings(SAMPLES, log_probs=[[-3.0] * 4, [-5.0] * 2])
    torch.testing.assert_close(one.member_shares, other.member_shares)


def test_known_ends() -> None:
    assert meanings([["a"], ["A."]]).entropy == 0
    apart = meanings([["a"] * 5, ["b"]])
    assert apart.entropy == apart.disagreement == pytest.approx(math.log(2))
    alone = meanings([["a", "b", "c"]])
    assert (alone.entropy, alone.disagreement) == (pytest.approx(math.log(3)), 0)


def test_entailment_of_ones_own() -> None:
    kinds = {"a poodle": {"dog", "poodle"}, "a dog": {"dog"}, "dog": {"dog"}}
    asked = []

    def entails(premise: str, conclusion: str) -> bool:
        asked.append((premise, conclusion))
        return kinds[conclusion] <= kinds[premise]

    found = meanings([["a dog", "a poodle", "dog"]], same=both_ways(entails))
    assert found.groups == ((0, 1, 0),)
    assert asked[0] == ("a dog", "a poodle")  # no: the way back is not asked


def test_groups_compare_with_the_first_answer() -> None:
    assert group(["1", "2", "3"], lambda a, b: abs(int(a) - int(b)) <= 1) == [0, 0, 1]
    assert same_words("The Eiffel  tower", "eiffel tower.")
    assert not same_words("eiffel tower", "eiffel")


@pytest.mark.parametrize(
    ("samples", "options", "said"),
    [
        ([], {}, "one member or more"),
        ([["a"], []], {}, "one sample or more"),
        ([["a", " "]], {}, "an empty answer has no meaning"),
        ([["a", "b"]], {"log_probs": [[-1.0]]}, r"\[2\] samples, \[1\]"),
        ([["a", "b"]], {"log_probs": [[-math.inf, -math.inf]]}, "no finite largest"),
        ([["a", "b"]], {"log_probs": [[0.0, math.nan]]}, "no finite largest"),
        ([["a"]], {"weights": torch.tensor([1.0, 2.0])}, r"weights are \[1\]"),
        ([["a"], ["b"]], {"weights": torch.tensor([0.0, 0.0])}, "one is positive"),
        ([["a"], ["b"]], {"weights": torch.tensor([1.0, -1.0])}, "not negative"),
    ],
)
def test_refused(samples: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        meanings(samples, **options)
