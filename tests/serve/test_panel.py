"""Members made ready: what they give is what `predict` gives, and what does not fit is refused at the start."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import pluria
from pluria.core.ensemble import Ensemble
from pluria.core.errors import CheckpointError, DataError
from pluria.pool import Cascade, mean, mean_logit
from pluria.predict import Part, predict
from pluria.serve.panel import Panel, Pooling, panel
from pluria.zoo import Dataset, network
from pluria.zoo.views import view


def outputs(held: Panel, x: Tensor) -> Tensor:
    return torch.stack(list(held.members([x])))


def test_members_are_those_of_predict_bit_for_bit(
    digits: Panel, model: nn.Module, members: Ensemble, rows: Dataset
) -> None:
    x = rows.normalise(rows.inputs[:50])
    wanted, _ = pluria.gather(predict(model, members, [x]))
    assert torch.equal(outputs(digits, x), wanted)
    assert torch.equal(outputs(digits, x), wanted)  # again, with the same working copy
    assert torch.equal(digits.weights, members.weights)


def test_views_and_several_networks() -> None:
    cnn, other = network("small_cnn", width=4), network("small_cnn", width=8, seed=1)
    first = pluria.low_precision(cnn, format="int4", members=3)
    second = pluria.single(other.state_dict())
    held = panel([Part(cnn, first, [view("identity"), view("left")]), Part(other, second)], (1, 8, 8))
    x = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    own, _ = pluria.gather(predict(cnn, first, [x], views=[view("identity"), view("left")]))
    assert torch.equal(outputs(held, x)[:3], own)
    with torch.inference_mode():
        assert torch.allclose(outputs(held, x)[3], other(x), atol=1e-6)
    assert held.weights.tolist() == pytest.approx([1 / 6] * 3 + [1 / 2])
    assert held.classes == tuple("0123456789")


def picky(outputs: Tensor, weights: Tensor) -> Tensor:
    raise ValueError("wanted two")


def test_what_does_not_fit() -> None:
    mlp, wide = network("mlp", inputs=4, classes=3), network("mlp", inputs=4, classes=5)
    own, other = pluria.single(mlp.state_dict()), pluria.single(wide.state_dict())
    with pytest.raises(DataError, match=r"shape \[2, 5\].*--shape"):
        panel([Part(mlp, own)], (5,))
    with pytest.raises(DataError, match="3 and 5 classes"):
        panel([Part(mlp, own), Part(wide, other)], (4,))
    with pytest.raises(DataError, match="3 classes apart, and the file names 2"):
        panel([Part(mlp, own)], (4,), classes=["a", "b"])
    with pytest.raises(CheckpointError):
        panel([Part(mlp, other)], (4,))
    with pytest.raises(DataError, match="no probabilities"):
        panel([Part(mlp, own)], (4,), pooling=Pooling(mean))
    with pytest.raises(DataError, match="does not take the outputs of 1 members: wanted two"):
        panel([Part(mlp, own)], (4,), pooling=Pooling(picky))
    dense = nn.Conv2d(1, 3, 1)
    with pytest.raises(DataError, match=r"wanted \[N, C\]"):
        panel([Part(dense, pluria.single(dense.state_dict()))], (1, 2, 2))


def test_a_cascade_asks_in_its_order_and_is_refused_for_others() -> None:
    net, other = network("small_cnn", width=4), network("small_cnn", width=8, seed=1)
    drawn = pluria.low_precision(net, format="int4", members=2)
    parts = [Part(net, drawn), Part(other, pluria.single(other.state_dict()))]
    rule = Cascade(((2,), (1, 0)), ((0.5, None),), 10, (1, 1, 1))
    held = panel(parts, (1, 8, 8), pooling=Pooling(mean_logit, rule=rule))
    plain, x = panel(parts, (1, 8, 8)), torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(outputs(held, x), outputs(plain, x)[[2, 1, 0]])
    for stages, classes in ((((0,), (1,)), 10), (((0,), (1, 2)), 7)):
        wrong = Cascade(stages, (None,), classes, (1,) * sum(map(len, stages)))
        with pytest.raises(DataError, match="the cascade of the file was fitted for"):
            panel(parts, (1, 8, 8), pooling=Pooling(mean_logit, rule=wrong))
