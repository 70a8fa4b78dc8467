"""Choosing a number system by running it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import pluria
from pluria.core.params import params_of
from pluria.pool import mean_probability
from pluria.recipe.choose import BY_BITS, choose


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3)).eval()


def inputs(count: int = 60) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(1))


def pooled(model: nn.Module, format: str) -> Tensor:
    """Log-probabilities of eight members, one by one."""
    outputs = []
    for member in pluria.low_precision(model, format=format):
        twin = network()
        twin.load_state_dict(member)
        with torch.inference_mode():
            outputs.append(twin(inputs()).double())
    return mean_probability(torch.stack(outputs))


def divergence(model: nn.Module, format: str) -> float:
    """Mean KL of the members' answer from full precision."""
    with torch.inference_mode():
        full = model(inputs()).double().log_softmax(-1)
    return float((full.exp() * (full - pooled(model, format))).sum(-1).mean())


def test_without_labels_the_fewest_bits_within_the_tolerance() -> None:
    model = network()
    wanted = [divergence(model, format) for format in BY_BITS]
    assert wanted[0] > wanted[3] > wanted[6], "more bits come closer"
    tolerance = (wanted[2] + wanted[1]) / 2
    format, choice = choose(model, [inputs()], tolerance=tolerance)
    first = next(i for i, value in enumerate(wanted) if value <= tolerance)
    assert (format, choice.position, choice.within) == (BY_BITS[first], first, True)
    assert choice.values == pytest.approx(wanted[: first + 1], abs=1e-6)


def test_a_tolerance_that_none_meets() -> None:
    format, choice = choose(network(), [inputs()], tolerance=0.0, formats=("int2", "int3"))
    assert format == "int3"
    assert not choice.within


def test_with_labels_the_best_likelihood() -> None:
    model = network()
    with torch.inference_mode():
        y = model(inputs()).argmax(-1)
    y = y.clone()
    y[::3] = (y[::3] + 1) % 3
    rows = [(inputs()[:25], y[:25]), (inputs()[25:], y[25:])]
    wanted = []
    for format in BY_BITS:
        wanted.append(float(-pooled(model, format).gather(1, y[:, None]).mean()))
    format, choice = choose(model, rows)
    assert format == BY_BITS[min(range(7), key=wanted.__getitem__)]
    assert choice.values == pytest.approx(wanted, abs=1e-6)


def test_labels_are_not_read_where_there_is_a_tolerance() -> None:
    one = choose(network(), [(inputs(), torch.zeros(60, dtype=torch.int64))], tolerance=0.01)
    assert one == choose(network(), [inputs()], tolerance=0.01)


def test_options_reach_the_members() -> None:
    model = network()
    before = params_of(model)
    plain = choose(model, [inputs()], tolerance=0.0, formats=("int3",))[1].values
    assert choose(model, [inputs()], tolerance=0.0, formats=("int3",), coupling="independent")[1].values != plain
    assert choose(model, [inputs()], tolerance=0.0, formats=("int3",), members=2)[1].values != plain
    assert choose(model, [inputs()], tolerance=0.0, formats=("int3",), key=5)[1].values != plain
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_choosing_by_labels_needs_them() -> None:
    with pytest.raises(ValueError, match="choosing by NLL needs targets in the batches"):
        choose(network(), [inputs()])
    with pytest.raises(ValueError, match="no candidates"):
        choose(network(), [inputs()], tolerance=0.1, formats=())
    with pytest.raises(ValueError, match="unknown number format 'int9'"):
        choose(network(), [inputs()], tolerance=0.1, formats=("int9",))
