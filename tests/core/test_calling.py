"""A model is called with what a batch holds, on its own device."""

import numpy as np
import pytest
import torch
from torch import nn

from pluria.core.calling import call, check_batches, check_seen, moved, place


def test_call_on_the_models_device() -> None:
    model = nn.Bilinear(2, 3, 4)
    inputs = {"input1": torch.ones(1, 2, dtype=torch.float64), "input2": torch.ones(1, 3)}
    here = moved(inputs, place(model), torch.float32)
    assert torch.equal(call(model, here), call(model, tuple(here.values())))


def test_a_batch_that_does_not_fit_is_told_in_words() -> None:
    model, x = nn.Linear(2, 3), torch.ones(4, 2)
    for batch in (x.numpy(), (x.numpy(),), {"input": x.numpy()}):
        with pytest.raises(TypeError, match=r"the batch holds a NumPy array; give a tensor, torch.from_numpy\(array\)"):
            call(model, batch)
    with pytest.raises(TypeError, match=r"the 2 parts of a batch.*give the inputs alone"):
        call(model, (x, torch.zeros(4)))


def test_errors_of_the_network_itself_stay() -> None:
    def failing(x: torch.Tensor) -> None:
        raise AttributeError("mine")

    with pytest.raises(AttributeError, match="mine"):
        call(failing, torch.ones(1))
    with pytest.raises(AttributeError, match="mine"):
        call(failing, (torch.ones(1),))
    with pytest.raises(TypeError, match="unexpected keyword"):
        call(failing, {"y": torch.ones(1)})


def test_a_network_may_take_arrays() -> None:
    assert call(lambda x: x.sum(), np.ones(3)) == 3


def test_one_batch_is_not_several() -> None:
    check_batches([torch.ones(2)])
    for one in (torch.ones(2), {"x": torch.ones(2)}, np.ones(2)):
        with pytest.raises(TypeError, match=r"Write \[inputs\]"):
            check_batches(one)


def test_inputs_that_are_not_finite() -> None:
    check_seen(torch.ones(2), "a", wanted="moments")
    with pytest.raises(ValueError, match="NaN or Inf among the inputs of layer 'a', so they have no moments"):
        check_seen(torch.tensor([1.0, torch.inf]), "a", wanted="moments")
    with pytest.raises(ValueError, match="inputs of the network, which is itself a layer, so"):
        check_seen(torch.tensor([torch.nan]), "", wanted="moments")
