"""Laws of ways to look, for every row of the catalogue: they repeat, and leave all as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from laws.examples import images, network, rows
from pluria.recipe.method import Method

Look = Callable[[Callable[..., Any], nn.Module], Any]
"""(the method, a network) -> what it says."""


def without_a_block(f: Callable[..., Any], model: nn.Module) -> Any:
    """The answers without the norm; afterwards it is there again."""
    with f(model[1]):  # type: ignore[index]
        inside = model(images())
    return inside, model(images())


LOOKS: dict[str, Look] = {
    "diagnose": lambda f, m: f([torch.tensor([1.0, 2.0, 1.5])], [m(images()), m(images() + 1)], [(2.0, 5.0)]),
    "sharpness": lambda f, m: f(m, lambda: F.cross_entropy(m(images()), torch.arange(12) % 3), steps=5, probes=3),
    "expansion": lambda f, m: f([torch.tanh, torch.sin], images(), scale=0.1),
    "dropped": without_a_block,
    "networks_needed": lambda f, m: f(2, trials=20),
    "extrapolate": lambda f, m: f(torch.stack([m(images() + i) for i in range(5)]), torch.arange(12) % 3, draws=3),
    "fit_power_law": lambda f, m: f(torch.arange(1, 6), torch.tensor([1.0, 0.8, 0.7, 0.65, 0.63])),
}


def keeps(law: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("method", rows("look", law), ids=lambda m: m.name)


def said(method: Method, model: nn.Module) -> str:
    """To the last digit."""
    torch.set_printoptions(precision=17)
    try:
        return repr(LOOKS[method.name](method.load(), model))
    finally:
        torch.set_printoptions(profile="default")


@keeps("repeat")
def test_the_same_inputs_give_the_same_numbers(method: Method) -> None:
    assert said(method, network()) == said(method, network())


@keeps("quiet")
def test_the_network_and_the_global_generator_are_untouched(method: Method) -> None:
    model, before = network(), torch.get_rng_state()
    said(method, model)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(value, network().state_dict()[name]) for name, value in model.state_dict().items())
    assert all(param.grad is None for param in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_another_network_is_seen() -> None:
    (method,) = (method for method in rows("look") if method.name == "sharpness")
    assert said(method, network()) != said(method, network(1))
