"""An objective out of a model and a loss: params to the loss and its gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pluria.core.params import Params
from pluria.merge.coordinates import Objective


def objective_of(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> Objective:
    """The objective `params -> (loss, gradient)` of `loss`, which is given a copy of the model with these params.

    The copy is in evaluation mode; the model itself stays as it is. `loss` gives one number with a gradient, and may
    take other examples at every call.

    >>> model, one = nn.Linear(1, 1, bias=False), torch.ones(1, 1)
    >>> objective = objective_of(model, lambda model: model(one).square().sum())
    >>> objective({"weight": torch.tensor([[3.0]])})
    (9.0, {'weight': tensor([[6.]])})
    """
    twin = copy.deepcopy(model).eval().requires_grad_(True)
    held = twin.state_dict(keep_vars=True)

    def objective(params: Params) -> tuple[float, Params]:
        with torch.no_grad():
            for name, value in params.items():
                held[name].copy_(value)
        twin.zero_grad()
        value = loss(twin)
        torch.autograd.backward(value)
        gradients = {name: tensor.grad for name, tensor in held.items()}
        return float(value.detach()), {name: slope.clone() for name, slope in gradients.items() if slope is not None}

    return objective
