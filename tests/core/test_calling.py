"""A model is called with what a batch holds, on its own device."""

import torch
from torch import nn

from pluria.core.calling import call, moved, place


def test_call_on_the_models_device() -> None:
    model = nn.Bilinear(2, 3, 4)
    inputs = {"input1": torch.ones(1, 2, dtype=torch.float64), "input2": torch.ones(1, 3)}
    here = moved(inputs, place(model), torch.float32)
    assert torch.equal(call(model, here), call(model, tuple(here.values())))
