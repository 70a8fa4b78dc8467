"""Refresh: what is left alone, what is refused, and how the model is called."""

import copy

import pytest
import torch
from torch import nn

from align.deep import batches, deep, differing
from pluria.align import has_batch_norm, refresh
from pluria.core.ensemble import single
from pluria.core.errors import CheckpointError
from pluria.core.params import params_of
from pluria.sample import low_precision
from predict.networks import draw


def test_the_users_model_is_untouched() -> None:
    model = deep().train()
    model[3].eval()
    model(batches()[0]).sum().backward()
    before, grad = copy.deepcopy(model.state_dict()), model[0].weight.grad.clone()
    state = torch.random.get_rng_state()
    refresh(model, low_precision(model, members=2), batches())
    assert not differing(model.state_dict(), before)
    assert [m.training for m in model] == [True, True, True, False, True, True, True]
    assert torch.equal(model[0].weight.grad, grad)
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(value.requires_grad for value in model.parameters())
    assert torch.equal(state, torch.random.get_rng_state())
    assert torch.is_grad_enabled()


def test_a_failure_leaves_the_model_as_it_was() -> None:
    model = deep().train()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError):
        refresh(model, single(params_of(model)), [draw(4, 2, 8, 8)])
    assert model.training
    assert not differing(model.state_dict(), before)
    assert torch.is_grad_enabled()


def test_models_without_running_statistics_are_refused() -> None:
    bare = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    assert not has_batch_norm(bare)
    assert not has_batch_norm(nn.BatchNorm1d(2, track_running_stats=False))
    assert has_batch_norm(nn.Sequential(bare, nn.BatchNorm1d(2)))
    with pytest.raises(ValueError, match="no batch norm with running statistics"):
        refresh(bare, single(params_of(bare)), [draw(2, 2)])


def test_no_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="no inputs"):
        refresh(deep(), single(params_of(deep())), [])
    with pytest.raises(ValueError, match="has no value per channel"):
        refresh(deep(), single(params_of(deep())), [draw(0, 3, 8, 8)])


def test_one_batch_and_inputs_that_are_not_finite_are_refused() -> None:
    net, x = deep(), draw(4, 3, 8, 8)
    with pytest.raises(TypeError, match=r"Write \[inputs\]"):
        refresh(net, single(params_of(net)), x)
    with pytest.raises(TypeError, match="give the inputs alone"):
        refresh(net, single(params_of(net)), [(x, torch.zeros(4))])
    x[2, 1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN or Inf among the inputs of layer '1', so they have no mean and variance"):
        refresh(net, single(params_of(net)), [x])


def test_other_networks_are_refused() -> None:
    other = single({"w": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="the ensemble does not fit the network"):
        refresh(deep(), other, batches())
    with pytest.raises(CheckpointError, match="the reference does not fit the network"):
        refresh(deep(), single(params_of(deep())), batches(), reference={"w": torch.zeros(2)})


def test_inputs_may_be_gone_through_once() -> None:
    ensemble = low_precision(deep(), format="int4", members=2)
    once, listed = refresh(deep(), ensemble, iter(batches())), refresh(deep(), ensemble, batches())
    assert not differing(once.params(1), listed.params(1))


def test_how_the_model_is_called() -> None:
    ensemble = low_precision(deep(), format="int4", members=1)
    pairs = [(x, torch.zeros(16)) for x in batches()]
    made = refresh(deep(), ensemble, pairs, forward=lambda model, batch: model(batch[0]))
    assert not differing(made.params(0), refresh(deep(), ensemble, batches()).params(0))
