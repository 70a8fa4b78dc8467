"""Maps between vocabularies and alignments, worked by hand and against slow forms."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

import pytest
import torch

from language.words import WORDS, tokenizer
from pluria.language import align_tokens, edit_distance, map_vocabulary, token_strings, union_vocabulary

SOURCE = ["<s>", " the", "cats", "dog", "zebra"]
TARGET = ["<s>", "cat", "c", "dog", " the", "a"]


def distance(a: str, b: str) -> int:
    """Edit distance by its recursion."""

    @cache
    def left(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        return min(left(i - 1, j) + 1, left(i, j - 1) + 1, left(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return left(len(a), len(b))


@pytest.mark.parametrize(
    ("rest", "to"), [("nearest", [0, 4, 1, 3, 5]), ("prefix", [0, 4, 1, 3, -1]), ("drop", [0, 4, -1, 3, -1])]
)
def test_hand_worked(rest: Any, to: list[int]) -> None:
    found = map_vocabulary(SOURCE, TARGET, rest=rest)
    assert found.to.tolist() == to
    assert found.exact.tolist() == [True, True, False, True, False]
    assert found.shared == 0.6
    probs = torch.tensor([0.1, 0.2, 0.3, 0.3, 0.1], dtype=torch.float64)
    wanted = {
        "nearest": [0.1, 0.3, 0, 0.3, 0.2, 0.1],
        "prefix": [1 / 9, 3 / 9, 0, 3 / 9, 2 / 9, 0],
        "drop": [1 / 6, 0, 0, 3 / 6, 2 / 6, 0],
    }[rest]
    assert found(probs.log()).exp().tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("rest", ["nearest", "prefix", "drop"])
def test_mass_is_kept(rest: Any) -> None:
    outputs = torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = map_vocabulary(SOURCE, TARGET, rest=rest)(outputs)
    assert found.shape == (2, 3, 6)
    torch.testing.assert_close(found.exp().sum(-1), torch.ones(2, 3, dtype=torch.float64))


def test_nan_stays_in_its_row() -> None:
    outputs = torch.tensor([[0.0, float("nan"), 0.0, 0.0, 0.0], [0.0] * 5])
    found = map_vocabulary(SOURCE, TARGET, rest="drop")(outputs)
    assert bool(found[0].isnan().all())
    torch.testing.assert_close(found[1].exp(), torch.tensor([1 / 3, 0, 0, 1 / 3, 1 / 3, 0]))


@pytest.mark.parametrize("rest", ["nearest", "prefix", "drop"])
def test_identical_vocabularies_give_the_identity(rest: Any) -> None:
    twice = [*WORDS, "the"]  # a string that stands twice stays twice
    found = map_vocabulary(twice, twice, rest=rest)
    assert found.to.tolist() == list(range(12))
    x = torch.randn(4, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    torch.testing.assert_close(found(x), x, rtol=1e-12, atol=1e-12)


def test_nearest_is_the_nearest_of_all() -> None:
    letters = ["".join(p) for n in (1, 2, 3) for p in product("abc", repeat=n)]
    source, target = [*letters[::2], "abcab", "ccccc"], [*letters[1::3], "a"]
    found = map_vocabulary(source, target).to.tolist()
    for string, place in zip(source, found, strict=True):
        best = min(distance(string, other) for other in target)
        assert distance(string, target[place]) == best
    # Level at one edit: the longest common beginning, then the lowest id.
    assert map_vocabulary(["x", "abd"], ["x", "bd", "ab", "abc"]).to.tolist() == [0, 2]


def test_the_longest_prefix() -> None:
    assert map_vocabulary(["a", "abcd", "xa"], ["a", "ab", "abcde", "bcd"], rest="prefix").to.tolist() == [0, 1, -1]


def test_names_that_mean_the_same_and_names_left_out() -> None:
    found = map_vocabulary(["<s>", "a", "<unk>"], ["[begin]", "a"], same={"<s>": "[begin]"}, leave_out=["<unk>"])
    assert found.to.tolist() == [0, 1, -1]
    with pytest.raises(ValueError, match="the first is to be a source token"):
        map_vocabulary(["<s>", "a"], ["b", "a"], same={"<s>": "[begin]"})


def test_a_row_that_says_nothing_is_uniform() -> None:
    found = map_vocabulary(["a", "zz"], ["a", "b"], rest="drop")
    rows = torch.tensor([[0.0, 1.0], [0.5, 0.5]]).log()
    assert found(rows).exp().tolist() == [[0.5, 0.5], [1.0, 0.0]]


def test_union() -> None:
    words, (first, second) = union_vocabulary(["a", "b", ""], ["c", "b"])
    assert words == ["a", "b", "c"]
    assert (first.to.tolist(), second.to.tolist()) == ([0, 1, -1], [2, 1])
    pooled = (first(torch.tensor([0.5, 0.5, 0.0]).log()).exp() + second(torch.tensor([0.6, 0.4]).log()).exp()) / 2
    torch.testing.assert_close(pooled, torch.tensor([0.25, 0.45, 0.3]))


def test_strings_of_tokens() -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    assert token_strings(tokenizer(2)) == [*WORDS, "w0", "w1"]

    class Marked:
        def get_vocab(self) -> dict[str, int]:
            names = ["\u2581the", "\u0120a", "<0x0A>", "<0x41>", "A", "<0xE2>", "\u010a"]
            return {name: i + (i > 3) for i, name in enumerate(names)}

    # Only one token is a line's end, and the byte that spells A is never said where there is an A.
    assert token_strings(Marked()) == [" the", " a", "<0x0A>", "<0x41>", "", "A", "<0xE2>", "\n"]


@pytest.mark.parametrize("pair", [("", "abc"), ("kitten", "sitting"), ("flaw", "lawn"), ("aaa", "aaa"), ("ab", "ba")])
def test_edit_distance(pair: tuple[str, str]) -> None:
    assert edit_distance(*pair) == edit_distance(*pair[::-1]) == distance(*pair)


def cost(pairs: list[tuple[int, int]], first: list[str], second: list[str]) -> int:
    return sum(distance(first[i], second[j]) for i, j in pairs)


def ways(n: int, m: int) -> list[list[tuple[int, int]]]:
    """Every monotone path through n x m pairs."""
    if (n, m) == (1, 1):
        return [[(0, 0)]]
    before = [(a, b) for a, b in ((n - 1, m - 1), (n - 1, m), (n, m - 1)) if a > 0 and b > 0]
    return [[*way, (n - 1, m - 1)] for a, b in before for way in ways(a, b)]


def test_alignment_is_the_cheapest_of_all() -> None:
    first, second = ["on", "ce", " upon", " a", " time"], ["once", " up", "on", " a time"]
    found = align_tokens(first, second)
    assert found in ways(5, 4)
    assert cost(found, first, second) == min(cost(way, first, second) for way in ways(5, 4))
    assert align_tokens(first, first) == [(i, i) for i in range(5)]
    assert align_tokens(["a"], ["x", "a", "y"]) == [(0, 0), (0, 1), (0, 2)]


def test_refused() -> None:
    with pytest.raises(ValueError, match="share no string"):
        map_vocabulary(["a", "b"], ["c", "d"])
    with pytest.raises(ValueError, match="share no string"):
        map_vocabulary([], ["c"])
    with pytest.raises(ValueError, match="rest is one of nearest, prefix, drop"):
        map_vocabulary(["a"], ["a"], rest="any")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="takes 5 source tokens"):
        map_vocabulary(SOURCE, TARGET)(torch.zeros(3, 6))
    with pytest.raises(ValueError, match="two sequences with tokens"):
        align_tokens([], ["a"])
