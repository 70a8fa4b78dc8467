"""predict: equal to loading members by hand, whatever the block, the batches, the view and the dtype."""

from collections.abc import Mapping

import pytest
import torch
from torch import nn

from core.laws import same_bits
from pluria.core.ensemble import join, single
from pluria.core.params import params_of
from pluria.predict import gather, predict
from pluria.sample import low_precision
from predict.networks import K, batches, by_hand, convolutional, ensemble, images


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


def test_a_union_of_checkpoints_and_draws() -> None:
    made = join(single(params_of(convolutional())), ensemble())
    outputs, _ = gather(predict(convolutional(), made, [images()]))
    assert same_bits(outputs, by_hand(convolutional(), made, images()))
