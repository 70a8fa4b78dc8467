"""Flattening dense outputs: order, padding, and targets that are refused by name."""

import pytest
import torch

from pluria.score import MEMBER_NLL, NLL, flatten, nll, tally
from pluria.score.rows import check_targets


def test_flatten_keeps_the_order_of_the_targets_and_drops_padding():
    outputs = torch.arange(2 * 2 * 3 * 4, dtype=torch.float32).reshape(2, 2, 3, 4)
    y = torch.tensor([[3, -100, 0], [-100, 1, 2]])
    flat, targets = flatten(outputs, y)
    assert targets.tolist() == [3, 0, 1, 2]
    wanted = [(0, 0), (0, 2), (1, 1), (1, 2)]
    assert torch.equal(flat, torch.stack([outputs[:, n, t] for n, t in wanted], dim=1))
    assert flat.dtype == outputs.dtype


def test_another_ignore_index_and_small_integer_types():
    y = torch.tensor([[1, 255]], dtype=torch.uint8)
    flat, targets = flatten(torch.zeros(1, 1, 2, 3), y, ignore_index=255)
    assert (flat.shape, targets.tolist(), targets.dtype) == ((1, 1, 3), [1], torch.int64)


def test_class_156_of_small_integers_is_a_class():
    # -100 is 156 in uint8, and 65436 in uint16.
    log_probs = torch.zeros(2, 200).log_softmax(-1)
    y = torch.tensor([156, 3], dtype=torch.uint8)
    assert flatten(log_probs[None], y)[1].tolist() == [156, 3]
    assert len(nll(log_probs, y)) == 2
    assert tally([NLL], log_probs, y).count == 2
    assert tally([MEMBER_NLL], log_probs, y, outputs=log_probs[None]).figures()["member_nll"] > 0


def test_the_first_bad_target_is_named():
    y = torch.zeros(3, 8, dtype=torch.long)
    y[1, 2], y[2, 7] = 12, -1
    with pytest.raises(
        ValueError, match=r"target 12 at index \(1, 2\) is no class: wanted 0\.\.9 or ignore_index=-100"
    ):
        flatten(torch.zeros(2, 3, 8, 10), y)
    with pytest.raises(ValueError, match=r"target -100 at index \(0,\)"):
        check_targets(torch.tensor([-100]), 3, ignore_index=255)
    with pytest.raises(ValueError, match=r"target 3 at index \(1,\)"):
        check_targets(torch.tensor([2, 3]), 3)


@pytest.mark.parametrize("y", [torch.zeros(3), torch.zeros(3, dtype=torch.bool)])
def test_targets_must_be_integers(y):
    with pytest.raises(ValueError, match="integer type"):
        flatten(torch.zeros(2, 3, 4), y)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        flatten(torch.zeros(2, 3, 4), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="do not fit"):
        flatten(torch.zeros(3, 4), torch.zeros(3, dtype=torch.long))


def test_logits_and_nan_are_no_log_probabilities():
    y = torch.tensor([0, 1])
    logits = torch.tensor([[0.0, -torch.inf], [2.0, 1.0]])
    with pytest.raises(ValueError, match="row 1 holds NaN or is not normalised"):
        nll(logits, y)
    rows = logits.log_softmax(-1)
    assert nll(rows, y)[0].item() == 0.0
    rows[1, 0] = torch.nan
    with pytest.raises(ValueError, match="row 1"):
        nll(rows, y)


def test_rounded_log_probabilities_are_accepted():
    rows = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    for dtype in (torch.float16, torch.bfloat16):
        assert bool(torch.isfinite(nll(rows.to(dtype), torch.zeros(50, dtype=torch.long))).all())
