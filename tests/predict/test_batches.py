"""What a batch is, how a model is called with it, and where its logits are."""

from collections import OrderedDict, UserDict
from typing import NamedTuple

import pytest
import torch
from torch import nn

from pluria.predict.batches import call, first, logits, moved, place

X, Y = torch.zeros(2, 3), torch.tensor([0, 1])


@pytest.mark.parametrize("batch", [(X, Y), [X, Y], (X, Y, "more")])
def test_pairs(batch: object) -> None:
    assert first(batch)[0] is X
    assert first(batch)[1] is Y


@pytest.mark.parametrize("name", ["labels", "label", "targets", "target", "y"])
@pytest.mark.parametrize("kind", [dict, OrderedDict, UserDict])
def test_named_targets(name: str, kind: type) -> None:
    batch = kind({"x": X, name: Y})
    inputs, targets = first(batch)
    assert inputs == {"x": X}
    assert targets is Y
    assert name in batch


def test_no_targets() -> None:
    assert first(X) == (X, None)
    assert first([X])[1] is None
    assert first({"x": X})[1] is None


class Pair(NamedTuple):
    x: torch.Tensor
    mask: torch.Tensor | None


def test_moved_keeps_structures() -> None:
    found = moved(
        {"a": [X, Y], "b": Pair(X, None), "c": ("word", 3, X), "d": X > 0}, torch.device("cpu"), torch.bfloat16
    )
    assert found["a"][0].dtype == torch.bfloat16
    assert found["a"][1] is Y
    assert isinstance(found["b"], Pair)
    assert found["b"].mask is None
    assert found["c"][:2] == ("word", 3)
    assert found["d"].dtype == torch.bool


def test_call() -> None:
    def model(x: int, y: int = 0, *, z: int = 0) -> tuple[int, int, int]:
        return x, y, z

    assert call(model, 1) == (1, 0, 0)
    assert call(model, (1, 2)) == (1, 2, 0)
    assert call(model, [1, 2]) == (1, 2, 0)
    assert call(model, {"x": 1, "z": 3}) == (1, 0, 3)


def test_logits_of_a_mapping_without_any() -> None:
    with pytest.raises(TypeError, match="returned OrderedDict"):
        logits(OrderedDict(hidden=X))
    assert logits(OrderedDict(logits=X, hidden=Y)) is X


def test_place() -> None:
    assert place(nn.Linear(2, 2)).type == "cpu"
    assert place(nn.Linear(2, 2, device="meta")).type == "meta"
    assert place(nn.ReLU()).type == "cpu"
