"""predict: the caller and the model are left as they were, bad arguments are refused, memory does not grow."""

from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset

from grown import growth, needs_proc
from pluria.core.ensemble import single, stack
from pluria.core.errors import CheckpointError
from pluria.core.params import params_of
from pluria.predict import gather, predict, runner
from pluria.sample import low_precision
from predict.networks import K, Named, X, batches, convolutional, ensemble, images


class Failing(nn.Module):
    """Fails on the second call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(3, 2), [0]

    def forward(self, x: Tensor) -> Tensor:
        self.calls[0] += 1
        if self.calls[0] > 1:
            raise RuntimeError("second call")
        return self.layer(x)


def snapshot(model: nn.Module) -> tuple[object, ...]:
    """Everything of a model that prediction could touch."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = [(p.data_ptr(), p.requires_grad, p.dtype, p.device, p._version) for p in model.parameters()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return state, parameters, grads, [m.training for m in model.modules()]


def unchanged(model: nn.Module, before: tuple[object, ...]) -> bool:
    state, parameters, grads, modes = snapshot(model)
    same = all(torch.equal(state[name], value) for name, value in before[0].items())
    same_grads = all(a is b or torch.equal(a, b) for a, b in zip(grads, before[2], strict=True))
    return same and same_grads and parameters == before[1] and modes == before[3]


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_users_model_is_untouched(backend: str, dtype: torch.dtype | None) -> None:
    model = convolutional().train()
    model[4].eval()
    model[0].weight.requires_grad_(False)
    model(images()).sum().backward()
    before = snapshot(model)
    state = torch.random.get_rng_state()
    list(predict(model, ensemble(), batches(), backend=backend, block=2, dtype=dtype, channels_last=dtype is not None))
    assert unchanged(model, before)
    assert torch.equal(state, torch.random.get_rng_state())
    with torch.no_grad():
        model[5].weight.add_(1)
    assert not unchanged(model, before)


def test_the_users_model_is_untouched_when_something_fails() -> None:
    model = Failing().train()
    before = snapshot(model)
    made = stack([params_of(Named())] * 2)
    with pytest.raises(RuntimeError, match="second call"):
        list(predict(model, made, [X], inputs=lambda b: (b, None)))
    assert unchanged(model, before)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


def test_an_iteration_that_is_left_changes_nothing() -> None:
    model = convolutional().train()
    before = snapshot(model)
    blocks = predict(model, ensemble(), batches())
    next(blocks)
    blocks.close()
    assert unchanged(model, before)
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("enabled", [True, False])
def test_the_callers_grad_mode_is_its_own_between_blocks(enabled: bool) -> None:
    with torch.set_grad_enabled(enabled):
        for _ in predict(convolutional(), ensemble(), batches()):
            assert torch.is_grad_enabled() == enabled
            assert not torch.is_inference_mode_enabled()
            assert torch.ones(1, requires_grad=True).mul(2).requires_grad == enabled


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_outputs_and_targets_can_be_used_with_autograd(backend: str) -> None:
    temperature = torch.ones((), requires_grad=True)
    found = predict(
        convolutional(), ensemble(), batches(), backend=backend, block=2, inputs=lambda b: (b[0] * 1, b[1] + 0)
    )
    for block in found:
        assert not block.outputs.is_inference()
        assert not block.outputs.requires_grad
        assert block.targets is not None
        assert not block.targets.is_inference()
        loss = nn.functional.cross_entropy(block.outputs[0] / temperature, block.targets)
        loss.backward()
    assert temperature.grad is not None


def test_an_iterator_is_refused() -> None:
    with pytest.raises(TypeError, match="give a list or a DataLoader, no iterator"):
        predict(convolutional(), ensemble(), iter(batches()))
    with pytest.raises(TypeError, match="no iterator"):
        predict(convolutional(), ensemble(), (batch for batch in batches()))


def test_a_loader_that_shuffles_is_refused() -> None:
    data = TensorDataset(images(), torch.arange(10))
    with pytest.raises(ValueError, match="shuffle=False"):
        predict(convolutional(), ensemble(), DataLoader(data, batch_size=4, shuffle=True))
    outputs, targets = gather(predict(convolutional(), ensemble(), DataLoader(data, batch_size=4)))
    assert outputs.shape == (K, 10, 4)
    assert targets is not None
    assert targets.tolist() == list(range(10))


def test_a_batch_sampler_that_shuffles_is_refused() -> None:
    data = TensorDataset(images(), torch.arange(10))
    sampler = BatchSampler(RandomSampler(data), batch_size=4, drop_last=False)
    with pytest.raises(ValueError, match="shuffle=False"):
        predict(convolutional(), ensemble(), DataLoader(data, batch_sampler=sampler))
    steady = BatchSampler(SequentialSampler(data), batch_size=4, drop_last=False)
    assert gather(predict(convolutional(), ensemble(), DataLoader(data, batch_sampler=steady)))[0].shape == (K, 10, 4)


class Caching(nn.Module):
    """Counts its calls in a buffer that no checkpoint holds, and puts another in its place."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.register_buffer("calls", torch.zeros(1), persistent=False)
        self.register_buffer("cache", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.cache = self.cache + 1
        return self.layer(x) + self.calls + self.cache


@pytest.mark.parametrize("block", [1, 3])
def test_members_do_not_see_what_others_left_in_caches(block: int) -> None:
    model, made = Caching(), low_precision(Caching(), members=3)
    outputs, _ = gather(predict(model, made, [X, X], block=block))
    for member in range(3):
        alone, _ = gather(predict(model, made.take([member]), [X]))
        assert torch.equal(outputs[member, : len(X)], alone[0])
        assert torch.equal(outputs[member, len(X) :], alone[0])
    assert float(model.calls) == 0


@pytest.mark.parametrize("axis", [2, -3, 0, -2])
def test_a_class_axis_that_is_not_there_is_refused(axis: int) -> None:
    with pytest.raises(ValueError, match=rf"class axis of outputs \(4, 4\) is one of 1..1.*got {axis}"):
        list(predict(convolutional(), ensemble(), batches(), class_axis=axis))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_inputs_have_the_networks_dtype(dtype: torch.dtype) -> None:
    x = X.to(dtype)
    model = Named()
    made = single(params_of(model))
    torch.testing.assert_close(gather(predict(model, made, [x]))[0], gather(predict(model, made, [x.float()]))[0])
    half = Named().to(torch.bfloat16)
    assert gather(predict(half, single(params_of(half)), [X]))[0].shape == (1, 6, 2)


class Again:
    """Re-iterable, though no list."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[Tensor]:
        self.passes += 1
        yield images()


@pytest.mark.parametrize(("block", "passes"), [(1, 5), (2, 3), (9, 1)])
def test_batches_are_gone_through_once_for_each_block_of_members(block: int, passes: int) -> None:
    source = Again()
    list(predict(convolutional(), ensemble(), source, block=block))
    assert source.passes == passes


def test_members_that_the_ensemble_lacks_are_refused() -> None:
    model = convolutional()
    run = runner(model, low_precision(model, members=4).take([0, 2]))
    assert {block.members for block in run(batches(), [2])} == {(2,)}
    with pytest.raises(ValueError, match=r"no member 1; its members are \[0, 2\]"):
        run(batches(), [0, 1])


def test_an_ensemble_of_another_network_is_refused_at_once() -> None:
    with pytest.raises(CheckpointError, match=r"the ensemble does not fit the network: .*missing.*unknown"):
        predict(convolutional(), single(params_of(Named())), batches())
    wider = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(CheckpointError, match=r"0.weight has \(4, 3\), wanted \(2, 3\)"):
        predict(nn.Sequential(nn.Linear(3, 2)), low_precision(wider), [X])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"block": 0}, "one member or more"), ({"views": ()}, "at least one view"), ({"backend": "both"}, "one of loop")],
)
def test_bad_options_are_refused_at_once(options: Mapping[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict(convolutional(), ensemble(), batches(), **options)


@needs_proc
def test_a_thousand_members_take_the_memory_of_few() -> None:
    one_by_one, together, held = growth("predict", "loop", "vmap", "held")
    assert one_by_one < 10e6
    assert together < 10e6
    assert held > 100e6, "the measurement sees members that are held"
