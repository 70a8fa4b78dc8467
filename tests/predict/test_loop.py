"""predict: equal to loading members by hand, whatever the block, the batches and the form of inputs and outputs."""

import copy
import gc
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from core.laws import same_bits
from pluria.core.ensemble import Ensemble, join, single, stack
from pluria.core.errors import CheckpointError
from pluria.core.params import params_of
from pluria.predict import gather, predict
from pluria.sample import low_precision
from predict.networks import batches, convolutional, draw, images

K = 5
STATM = Path("/proc/self/statm")


def ensemble() -> Ensemble:
    return low_precision(convolutional(), format="int4", members=K)


def by_hand(model: nn.Module, made: Ensemble, x: Tensor) -> Tensor:
    """Each member loaded into a copy of the model, as a user would."""
    twin, rows = copy.deepcopy(model).eval(), []
    for params in made:
        twin.load_state_dict(params)
        with torch.no_grad():
            rows.append(twin(x))
    return torch.stack(rows)


def test_equals_loading_each_member_bit_for_bit() -> None:
    model, made = convolutional(), ensemble()
    for block in predict(model, made, batches()):
        (position,) = [i for i, member in enumerate(made.members) if (member,) == block.members]
        wanted = by_hand(model, made, images()[block.ids.start : block.ids.stop])
        assert same_bits(block.outputs[0], wanted[position])


def test_blocks_say_whose_they_are() -> None:
    found = [(b.members, b.ids, b.targets.tolist()) for b in predict(convolutional(), ensemble(), batches(), block=2)]
    rows = [(range(0, 4), [0, 1, 2, 3]), (range(4, 8), [0, 1, 2, 3]), (range(8, 10), [0, 1])]
    assert found == [(members, ids, labels) for members in ((0, 1), (2, 3), (4,)) for ids, labels in rows]


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize(("block", "size"), [(1, 10), (2, 3), (K, 4), (99, 1)])
def test_blocks_batches_and_back_ends_agree(backend: str, block: int, size: int) -> None:
    made = ensemble()
    wanted = by_hand(convolutional(), made, images())
    outputs, targets = gather(predict(convolutional(), made, batches(size), block=block, backend=backend))
    torch.testing.assert_close(outputs, wanted, rtol=1e-5, atol=1e-5)
    assert targets is not None
    assert targets.tolist() == [i % 4 for i in range(10)]


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_members_are_found_by_their_numbers(backend: str) -> None:
    made = ensemble().take([4, 0, 2])
    outputs, _ = gather(predict(convolutional(), made, batches(), backend=backend, block=2))
    whole, _ = gather(predict(convolutional(), ensemble(), batches(), backend=backend, block=2))
    torch.testing.assert_close(outputs, whole[[4, 0, 2]], rtol=1e-5, atol=1e-5)


class Named(nn.Module):
    """Takes two tensors, by position or by name, and gives what it is told to give."""

    def __init__(self, form: str = "tensor") -> None:
        super().__init__()
        self.layer, self.form = nn.Linear(3, 2), form
        with torch.no_grad():
            self.layer.weight.copy_(draw(2, 3))
            self.layer.bias.zero_()

    def forward(self, x: Tensor, shift: Tensor | None = None, *, flag: bool = True) -> object:
        result = self.layer(x if shift is None else x + shift)
        return {
            "tensor": result,
            "tuple": (result, None),
            "list": [result],
            "dict": {"loss": None, "logits": result},
            "object": Output(logits=result),
            "nested": Output(logits=(result, 1)),
            "words": "no logits here",
            "other dict": {"hidden": result},
            "empty": (),
        }[self.form]


@dataclass
class Output:
    logits: object
    loss: float = 0.0


class Pair(NamedTuple):
    x: Tensor
    shift: Tensor


X, SHIFT = draw(6, 3, seed=3), draw(6, 3, seed=4)
WANTED = (X + SHIFT) @ draw(2, 3).T


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
@pytest.mark.parametrize("axis", [1, -3])
def test_the_class_axis_of_segmentation_goes_last(axis: int, backend: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 7, 1))
    made = low_precision(model, members=2)
    x = images(4)
    outputs, _ = gather(predict(model, made, [x], class_axis=axis, backend=backend, block=2))
    assert outputs.shape == (2, 4, 6, 6, 7)
    torch.testing.assert_close(outputs, by_hand(model, made, x).movedim(2, -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("axis", [-1, 1])
def test_a_class_axis_that_is_last_stays(axis: int) -> None:
    made = ensemble()
    outputs, _ = gather(predict(convolutional(), made, [images()], class_axis=axis))
    assert same_bits(outputs, by_hand(convolutional(), made, images()))


@pytest.mark.parametrize("backend", ["loop", "vmap"])
@pytest.mark.parametrize("block", [1, 3, 5])
def test_views_go_by_member_number(backend: str, block: int) -> None:
    views = (lambda x: x, lambda x: x.flip(-1), lambda x: 2 * x)
    made = ensemble().take([4, 0, 3, 2])
    outputs, _ = gather(predict(convolutional(), made, batches(), views=views, backend=backend, block=block))
    for position, member in enumerate(made.members):
        wanted = by_hand(convolutional(), made.take([position]), views[member % 3](images()))[0]
        torch.testing.assert_close(outputs[position], wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_views_of_named_inputs(backend: str) -> None:
    views = (lambda b: b, lambda b: {**b, "shift": -b["shift"]})
    made = stack([params_of(Named())] * 2)
    outputs, _ = gather(predict(Named(), made, [{"x": X, "shift": SHIFT}], views=views, backend=backend, block=2))
    torch.testing.assert_close(outputs[1], (X - SHIFT) @ draw(2, 3).T)


@pytest.mark.parametrize("options", [{"dtype": torch.bfloat16}, {"dtype": torch.bfloat16, "channels_last": True}])
def test_bfloat16_is_close(options: Mapping[str, object]) -> None:
    wanted, _ = gather(predict(convolutional(), ensemble(), batches()))
    close, _ = gather(predict(convolutional(), ensemble(), batches(), **options))
    assert close.dtype == torch.float32
    assert float((close - wanted).norm() / wanted.norm()) < 0.02
    assert not torch.equal(close, wanted)


def test_channels_last_alone_is_the_same_within_rounding() -> None:
    wanted, _ = gather(predict(convolutional(), ensemble(), batches()))
    close, _ = gather(predict(convolutional(), ensemble(), batches(), channels_last=True))
    torch.testing.assert_close(close, wanted, rtol=1e-5, atol=1e-5)


def test_integer_inputs_keep_their_dtype() -> None:
    model = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))
    outputs, _ = gather(predict(model, low_precision(model, members=2), [torch.tensor([[0, 4]])], dtype=torch.bfloat16))
    assert outputs.shape == (2, 1, 2)


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


def test_an_ensemble_of_another_network_is_refused_at_once() -> None:
    with pytest.raises(CheckpointError, match=r"the ensemble does not fit the network: .*missing.*unknown"):
        predict(convolutional(), single(params_of(Named())), batches())
    wider = nn.Sequential(nn.Linear(3, 4))
    with pytest.raises(CheckpointError, match=r"0.weight has \(4, 3\), wanted \(2, 3\)"):
        predict(nn.Sequential(nn.Linear(3, 2)), low_precision(wider), [X])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"block": 0}, "one member or more"), ({"views": ()}, "at least one view"), ({"backend": "auto"}, "'loop' or")],
)
def test_bad_options_are_refused_at_once(options: Mapping[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        predict(convolutional(), ensemble(), batches(), **options)


def growth(work: Iterator[object]) -> int:
    """By how many bytes the process grows beyond what it held when the first of `work` was done."""
    gc.collect()
    held: list[int] = []
    for _ in work:
        pages = int(STATM.read_text().split()[1])
        held.append(pages * 4096)
    return max(held) - held[0]


WIDE = nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(1))
needs_proc = pytest.mark.skipif(not STATM.exists(), reason="the process's size is read from /proc")


@needs_proc
@pytest.mark.parametrize("backend", ["loop", "vmap"])
def test_a_thousand_members_take_the_memory_of_few(backend: str) -> None:
    made = low_precision(WIDE, members=1000)  # 155 MB, were they held
    assert growth(predict(WIDE, made, [images(1)], backend=backend, block=10)) < 30e6


@needs_proc
def test_held_members_would_be_seen() -> None:
    held: list[object] = []
    made = low_precision(WIDE, members=400)
    assert growth(held.append(params) for params in made) > 30e6


def test_a_union_of_checkpoints_and_draws() -> None:
    made = join(single(params_of(convolutional())), ensemble())
    outputs, _ = gather(predict(convolutional(), made, [images()]))
    assert same_bits(outputs, by_hand(convolutional(), made, images()))
