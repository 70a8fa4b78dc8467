"""Batches cut and joined: what a network sees of them, and that outputs come back batch by batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from pluria.predict import Block, Choice, predict
from pluria.predict.pieces import apart, in_pieces, joined, rows, together
from pluria.sample import low_precision
from predict.networks import Named, batches, convolutional, draw, ensemble

X = draw(7, 3)


def sizes(data: list[Any], size: int | None) -> list[int]:
    return [len(group) for group in together(data, size, lambda x: x)]


@pytest.mark.parametrize(("size", "wanted"), [(None, [1, 1, 1, 1]), (1, [1] * 4), (4, [2, 2]), (6, [3, 1]), (99, [4])])
def test_neighbours_are_taken_together_up_to_a_size(size: int | None, wanted: list[int]) -> None:
    assert sizes(list(X.split(2)), size) == wanted


def test_what_cannot_be_joined_stays_apart() -> None:
    assert sizes([X, X[:, :2]], 99) == [1, 1], "another shape"
    assert sizes([X, X.double()], 99) == [1, 1], "another dtype"
    assert sizes([{"x": X, "flag": True}, {"x": X, "flag": True}, {"x": X, "flag": False}], 99) == [2, 1]
    assert sizes([(X, object()), (X, object())], 99) == [1, 1], "what cannot be compared"
    assert sizes([(X, X[:3]), (X, X[:3])], 99) == [1, 1], "no number of examples"
    assert sizes([], 99) == []


@pytest.mark.parametrize("form", [lambda x: x, lambda x: (x, {"y": 2 * x}), lambda x: {"x": x, "n": 3}])
def test_joining_undoes_cutting(form: Callable[[Tensor], Any]) -> None:
    whole = joined([form(part) for part in X.split(2)])
    assert rows(whole) == 7
    seen: list[Any] = []
    in_pieces(lambda part: seen.append(part) or X, whole, 2)
    for one, part in zip(seen, X.split(2), strict=True):
        assert str(one) == str(form(part))


def test_outputs_that_do_not_count_the_examples_are_refused() -> None:
    parts = X.split(4)
    assert [part.shape for part in apart(torch.zeros(2, 7, 5), parts)] == [(2, 4, 5), (2, 3, 5)]
    with pytest.raises(ValueError, match="7 examples of joined batches give 14 rows of outputs, which cannot be told"):
        apart(torch.zeros(2, 14, 5), parts)


def told(block: Block) -> tuple[Any, ...]:
    return block.ids, block.members, block.targets.tolist()


@pytest.mark.parametrize("size", [1, 3, 6, 99])
@pytest.mark.parametrize("block", [1, 2])
def test_a_choice_of_any_size_gives_the_same_blocks(size: int, block: int) -> None:
    options: dict[str, Any] = {"views": (lambda x: x, lambda x: x.flip(-1)), "block": block}
    model, made, data = convolutional(), ensemble(), batches(3, 10)
    wanted = list(predict(model, made, data, **options))
    found = list(predict(model, made, data, backend=Choice("loop", size), **options))
    assert list(map(told, found)) == list(map(told, wanted))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one.outputs, other.outputs)


def test_named_inputs_are_joined_as_well() -> None:
    model = Named()
    made, data = low_precision(model, members=2), [{"x": part, "shift": part} for part in X.split(3)]
    wanted = [block.outputs for block in predict(model, made, data)]
    found = [block.outputs for block in predict(model, made, data, backend=Choice("loop", 6))]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
