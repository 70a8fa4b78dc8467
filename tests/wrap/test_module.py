"""An ensemble as a module: its answers, its place in other modules, what its state dict holds."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

import pluria
from pluria.core.errors import CheckpointError
from pluria.pool import LogLinear, Temperature
from pluria.predict import gather, predict
from pluria.wrap import EnsembleModule


class Two(nn.Module):
    """Takes two arguments, and holds a buffer that no checkpoint holds."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(2, 3)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.calls += 1
        return self.first(x) + self.second(y) * self.calls


@pytest.fixture
def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 3))


@pytest.fixture
def module(network: nn.Module) -> EnsembleModule:
    return EnsembleModule(network, pluria.low_precision(network, format="int3", members=4))


X = torch.linspace(-2, 2, 20).reshape(5, 4)


def test_equal_members_give_what_the_network_gives(network: nn.Module) -> None:
    params = pluria.params_of(network)
    module = EnsembleModule(network, pluria.stack([params] * 3))
    torch.testing.assert_close(module(X), network.eval()(X).log_softmax(-1).detach(), rtol=0, atol=1e-6)


def test_members_and_answer_are_those_of_predict(network: nn.Module, module: EnsembleModule) -> None:
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1])
    ensemble = module.ensemble.reweight(weights)
    outputs, _ = gather(predict(network, ensemble, [X]))
    for pool, rule in (("probability", pluria.mean_probability), ("logit", pluria.mean_logit)):
        weighted = EnsembleModule(network, ensemble, pool=pool)
        assert torch.equal(weighted.members(X), outputs)
        assert torch.equal(weighted(X), rule(outputs, ensemble.weights))
    assert torch.equal(module(X), pluria.mean_probability(outputs))
    assert not torch.equal(module(X), weighted(X))
    plain = EnsembleModule(network, ensemble, pool="output")(X)
    torch.testing.assert_close(plain, torch.einsum("k,knc->nc", weights, outputs))


def test_pool_and_temperature_that_were_fitted(network: nn.Module, module: EnsembleModule) -> None:
    pool, temperature = LogLinear((1.0, 0.5, 0.0, 0.0)), Temperature(2.0)
    fitted = EnsembleModule(network, module.ensemble, pool=pool, temperature=temperature)
    assert torch.equal(fitted(X), temperature(pool(module.members(X))))
    before = module(X)
    module.temperature = temperature
    assert torch.equal(module(X), temperature(before))


def test_members_see_their_views(network: nn.Module, module: EnsembleModule) -> None:
    seen = EnsembleModule(network, module.ensemble, views=(lambda x: x, torch.zeros_like), block=3).members(X)
    plain, nothing = module.members(X), module.members(torch.zeros_like(X))
    assert torch.equal(seen[[0, 2]], plain[[0, 2]])
    assert torch.equal(seen[[1, 3]], nothing[[1, 3]])


def test_side_by_side_is_one_by_one(network: nn.Module, module: EnsembleModule) -> None:
    other = EnsembleModule(network, module.ensemble, backend="vmap", block=4)
    torch.testing.assert_close(other.members(X), module.members(X))


def test_arguments_by_position_and_by_name() -> None:
    network = Two()
    module = EnsembleModule(network, pluria.low_precision(network, members=2))
    y = torch.ones(5, 2)
    assert torch.equal(module(X, y), module(x=X, y=y))
    assert torch.equal(module(X, y), module(X, y))  # the buffer is put back
    assert network.calls == 0
    for args, kwargs in (((X,), {"y": y}), ((), {})):
        with pytest.raises(TypeError, match="by position or by name"):
            module(*args, **kwargs)


def test_nothing_of_it_is_trained(network: nn.Module, module: EnsembleModule) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    first = module(X)
    whole = nn.Sequential(nn.Linear(4, 4), module).train()
    answer = whole(X.requires_grad_())
    assert not answer.requires_grad
    assert not answer.is_inference()
    assert list(module.parameters()) == []
    assert torch.equal(module(X.detach()), first)  # dropout stays off
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    (nn.Linear(3, 1)(answer).sum()).backward()  # what follows it trains


def test_it_moves_and_casts(module: EnsembleModule) -> None:
    exact = module(X)
    twin = copy.deepcopy(module).to(torch.bfloat16)
    assert twin(X).dtype == torch.float32
    assert 0 < float((twin(X) - exact).abs().max()) < 0.1
    assert torch.equal(twin.to(torch.float32)(X), exact)  # the ensemble kept its own precision
    assert module.to("meta").device.type == "meta"
    assert all(family.base.value.is_meta for family in module.ensemble.families.values() if hasattr(family, "base"))


def test_copies_are_the_same(module: EnsembleModule) -> None:
    exact = module(X)
    assert torch.equal(copy.deepcopy(module)(X), exact)
    assert torch.equal(pickle.loads(pickle.dumps(module))(X), exact)


@pytest.mark.parametrize("nested", [False, True])
def test_state_dict(network: nn.Module, module: EnsembleModule, nested: bool) -> None:
    module.temperature, module.pool = Temperature(1.5), "logit"
    fresh = EnsembleModule(network, pluria.low_precision(network, members=2, key=7))
    source, target = (nn.Sequential(each) if nested else each for each in (module, fresh))
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    target.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(fresh(X), module(X))
    assert (len(fresh.ensemble), fresh.temperature, fresh.pool) == (4, Temperature(1.5), "logit")
    target.load_state_dict(load(save(source.state_dict())))
    assert torch.equal(fresh(X), module(X))


def test_state_dicts_that_do_not_fit(network: nn.Module, module: EnsembleModule) -> None:
    state, before = module.state_dict(), module(X)
    with pytest.raises(RuntimeError, match=r"Missing key.*content"):
        module.load_state_dict({})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*other"):
        module.load_state_dict({**state, "other": X})
    with pytest.raises(RuntimeError, match=r"0\.weight"):
        module.load_state_dict({name: value for name, value in state.items() if "0.weight" not in name})
    other = nn.Linear(4, 3)
    with pytest.raises(RuntimeError, match="does not fit the network"):
        module.load_state_dict(EnsembleModule(other, pluria.low_precision(other)).state_dict())
    fitted = EnsembleModule(network, module.ensemble, pool=LogLinear((1.0,) * 4))
    with pytest.raises(RuntimeError, match="fitted pool"):
        module.load_state_dict(fitted.state_dict())
    fitted.load_state_dict(fitted.state_dict())
    assert torch.equal(module(X), before)


def test_what_is_refused(network: nn.Module, module: EnsembleModule) -> None:
    with pytest.raises(ValueError, match="a pool is"):
        EnsembleModule(network, module.ensemble, pool="mean")
    with pytest.raises(ValueError, match="have no temperature"):
        EnsembleModule(network, module.ensemble, pool="output", temperature=Temperature(1.0))
    with pytest.raises(ValueError, match="back end"):
        EnsembleModule(network, module.ensemble, backend="both")  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="does not fit"):
        EnsembleModule(nn.Linear(4, 3), module.ensemble)


def test_it_says_what_it_is(module: EnsembleModule) -> None:
    assert "Sequential, 4 members, pool='probability'" in repr(module)
