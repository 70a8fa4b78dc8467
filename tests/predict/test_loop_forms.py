"""predict: forms of inputs and of outputs."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from pluria.core.ensemble import single, stack
from pluria.core.params import params_of
from pluria.predict import gather, predict
from predict.networks import SHIFT, WANTED, Named, X, draw


class Pair(NamedTuple):
    x: Tensor
    shift: Tensor


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize(
    "batch",
    [
        ((X, SHIFT), torch.arange(6)),
        (Pair(X, SHIFT), torch.arange(6)),
        {"x": X, "shift": SHIFT, "labels": torch.arange(6)},
        {"x": X, "shift": SHIFT, "flag": True, "y": torch.arange(6)},
    ],
    ids=["tuple", "named tuple", "dict", "dict with a flag"],
)
def test_forms_of_inputs(batch: object, backend: str) -> None:
    made = stack([params_of(Named())] * 2)
    outputs, targets = gather(predict(Named(), made, [batch], backend=backend, block=2))
    torch.testing.assert_close(outputs, torch.stack([WANTED, WANTED]))
    assert targets is not None
    assert targets.tolist() == list(range(6))


@pytest.mark.parametrize("batch", [X, [X], (X,), {"x": X}])
def test_batches_without_targets(batch: object) -> None:
    outputs, targets = gather(predict(Named(), single(params_of(Named())), [batch]))
    assert targets is None
    torch.testing.assert_close(outputs[0], X @ draw(2, 3).T)


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize("form", ["tensor", "tuple", "list", "dict", "object", "nested"])
def test_forms_of_outputs(form: str, backend: str) -> None:
    made = stack([params_of(Named())] * 2)
    outputs, _ = gather(predict(Named(form), made, [X], backend=backend, block=2))
    torch.testing.assert_close(outputs[1], X @ draw(2, 3).T)


@pytest.mark.parametrize(("form", "kind"), [("words", "str"), ("other dict", "dict"), ("empty", "tuple")])
def test_outputs_without_logits_are_refused(form: str, kind: str) -> None:
    with pytest.raises(TypeError, match=f"the model returned {kind}, which has no logits; give an `output` function"):
        list(predict(Named(form), single(params_of(Named())), [X]))


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_an_output_function(backend: str) -> None:
    made = stack([params_of(Named())] * 2)
    found = predict(Named("other dict"), made, [X], output=lambda o: o["hidden"].softmax(-1), backend=backend, block=2)
    torch.testing.assert_close(gather(found)[0][0], (X @ draw(2, 3).T).softmax(-1))


def test_an_input_function() -> None:
    made = single(params_of(Named()))
    batch = {"picture": X, "answer": torch.arange(6), "id": "a"}
    outputs, targets = gather(predict(Named(), made, [batch], inputs=lambda b: (b["picture"], b["answer"])))
    torch.testing.assert_close(outputs[0], X @ draw(2, 3).T)
    assert targets is not None


def test_targets_that_are_no_tensors() -> None:
    _, targets = gather(predict(Named(), single(params_of(Named())), [(X, [1, 2, 3, 4, 5, 6])]))
    assert targets is not None
    assert targets.tolist() == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_views_of_named_inputs(backend: str) -> None:
    views = (lambda b: b, lambda b: {**b, "shift": -b["shift"]})
    made = stack([params_of(Named())] * 2)
    outputs, _ = gather(predict(Named(), made, [{"x": X, "shift": SHIFT}], views=views, backend=backend, block=2))
    torch.testing.assert_close(outputs[1], (X - SHIFT) @ draw(2, 3).T)
