"""Multi-label scores against hand-worked cases and torch's own loss."""

import math

import pytest
import torch

from pluria.score import BINARY_BRIER, BINARY_ERROR, BINARY_NLL, binary_brier, binary_error, binary_nll, tally

SCORES = [binary_nll, binary_brier, binary_error]


def drawn(n=40, labels=3):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, labels, generator=generator, dtype=torch.float64) * 3
    return logits, (torch.rand(n, labels, generator=generator) < 0.4).long()


def test_hand_worked_example():
    logits = torch.tensor([[0.9, 0.4]], dtype=torch.float64).logit()
    y = torch.tensor([[0, 1]])
    assert binary_nll(logits, y).item() == pytest.approx(-(math.log(0.1) + math.log(0.4)) / 2, abs=1e-12)
    assert binary_brier(logits, y).item() == pytest.approx((0.81 + 0.36) / 2, abs=1e-12)
    assert binary_error(logits, y).item() == 1.0


def test_torch_agrees():
    logits, y = drawn()
    wanted = torch.nn.functional.binary_cross_entropy(logits.sigmoid(), y.double())
    assert binary_nll(logits, y).mean().item() == pytest.approx(wanted.item(), rel=1e-10)


def test_confident_labels_keep_their_digits():
    assert binary_nll(torch.tensor([[40.0]]), torch.tensor([[1]])).item() == pytest.approx(math.exp(-40), rel=1e-12)


@pytest.mark.parametrize("score", SCORES)
def test_one_label_needs_no_axis_of_its_own(score):
    logits, y = drawn(labels=1)
    assert torch.equal(score(logits[:, 0], y[:, 0]), score(logits, y))
    assert score(logits[:, 0], y[:, 0].bool()).shape == (40,)


@pytest.mark.parametrize("score", SCORES)
def test_what_is_refused(score):
    logits, y = drawn()
    y[3, 1] = 2
    with pytest.raises(ValueError, match=r"target 2 at index \(3, 1\)"):
        score(logits, y)
    with pytest.raises(ValueError, match=r"both be \[N, L\]"):
        score(logits, y[:, :2])


def test_they_tally():
    logits, y = drawn()
    scores = (BINARY_NLL, BINARY_BRIER, BINARY_ERROR)
    figures = (tally(scores, logits[:10], y[:10]) + tally(scores, logits[10:], y[10:])).figures()
    for name, score in zip(figures, SCORES, strict=True):
        assert figures[name] == pytest.approx(score(logits, y).mean().item(), rel=1e-12)
