"""Blocks put together."""

import pytest
import torch

from pluria.predict import Block, gather, predict
from pluria.sample import low_precision
from predict.networks import batches, convolutional


def block(members: tuple[int, ...], start: int, values: list[list[float]], targets: list[int] | None = None) -> Block:
    outputs = torch.tensor(values).unsqueeze(-1)
    labels = None if targets is None else torch.tensor(targets)
    return Block(range(start, start + outputs.shape[1]), members, outputs, labels)


def test_by_hand() -> None:
    blocks = [
        block((0, 1), 0, [[1, 2], [3, 4]], [7, 8]),
        block((0, 1), 2, [[5], [6]], [9]),
        block((2,), 0, [[10, 11]], [7, 8]),
        block((2,), 2, [[12]], [9]),
    ]
    outputs, targets = gather(blocks)
    assert outputs.squeeze(-1).tolist() == [[1, 2, 5], [3, 4, 6], [10, 11, 12]]
    assert targets is not None
    assert targets.tolist() == [7, 8, 9]
    mixed, _ = gather([blocks[0], blocks[2], blocks[3], blocks[1]])
    assert torch.equal(mixed, outputs)


def test_without_targets() -> None:
    assert gather([block((0,), 0, [[1]])])[1] is None


def test_targets_that_differ_between_members_are_refused() -> None:
    stable = [block((0,), 0, [[1, 2]], [7, 8]), block((1,), 0, [[3, 4]], [7, 8])]
    assert gather(stable)[0].shape == (2, 2, 1)
    with pytest.raises(ValueError, match="members did not see the same examples"):
        gather([stable[0], block((1,), 0, [[3, 4]], [8, 7])])


def test_missing_float_targets_are_equal_to_themselves() -> None:
    label = torch.tensor([1.0, float("nan")])
    blocks = [Block(range(2), (member,), torch.zeros(1, 2, 1), label.clone()) for member in (0, 1)]
    assert gather(blocks)[0].shape == (2, 2, 1)


def test_ragged_outputs_are_refused() -> None:
    blocks = [
        Block(range(2 * i, 2 * i + 2), (0,), torch.zeros(1, 2, length, 3), None) for i, length in enumerate((4, 5))
    ]
    with pytest.raises(ValueError, match=r"\(4, 3\), \(5, 3\). Pad all examples to one length.*-100"):
        gather(blocks)


def test_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="there was no batch"):
        gather([])
    with pytest.raises(ValueError, match="there was no batch"):
        gather(predict(convolutional(), low_precision(convolutional()), []))


@pytest.mark.parametrize("block_size", [1, 2, 3])
def test_a_member_taken_twice_has_two_rows(block_size: int) -> None:
    made = low_precision(convolutional(), members=3)
    whole, labels = gather(predict(convolutional(), made, batches()))
    twice, targets = gather(predict(convolutional(), made.take([2, 2, 0, 2]), batches(), block=block_size))
    torch.testing.assert_close(twice, whole[[2, 2, 0, 2]])
    assert targets is not None
    assert labels is not None
    assert torch.equal(targets, labels)
