"""Calibration by bins: hand cases, an own loop, torchmetrics, and what must not depend on order."""

import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from pluria.score import ECE as ECE_SCORE
from pluria.score import adaptive_ece, adaptive_reliability, confidence, ece, nll, reliability, tally, top_reliability


def drawn(n=500, c=4, scale=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    log_probs = (torch.randn(n, c, generator=generator, dtype=torch.float64) * scale).log_softmax(-1)
    return log_probs, torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]


def rows_of(confidences, correct):
    """Two-class rows with these confidences in class 0, and targets that are right or wrong."""
    p = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([p, 1 - p], dim=1).log(), torch.tensor([0 if right else 1 for right in correct])


def slow_ece(log_probs, y, bins):
    rows = [(max(row), row.index(max(row)) == t) for row, t in zip(log_probs.exp().tolist(), y.tolist(), strict=True)]
    total = 0.0
    for b in range(bins):
        inside = [r for r in rows if b / bins <= r[0] < (b + 1) / bins or (b == bins - 1 and r[0] >= 1)]
        if inside:
            total += abs(sum(conf for conf, _ in inside) - sum(right for _, right in inside))
    return total / len(rows)


def test_hand_worked_bins():
    rows = rows_of([0.95, 0.9, 0.7, 0.6], [True, False, True, True])
    diagram = reliability(*rows, bins=5)
    assert diagram.count.tolist() == [0, 0, 0, 2, 2]
    assert diagram.confidence[3:].tolist() == pytest.approx([0.65, 0.925])
    assert diagram.accuracy[3:].tolist() == [1.0, 0.5]
    assert bool(diagram.accuracy[:3].isnan().all())
    assert ece(*rows, bins=5) == pytest.approx(0.5 * 0.35 + 0.5 * 0.425)


def test_a_confidence_of_one_belongs_to_the_last_bin():
    # Two rows in one bin: mean confidence .975, accuracy .5. With a bin of its own for 1.0 it would be (1 + .05) / 2.
    rows = rows_of([1.0, 0.95], [False, True])
    diagram = reliability(*rows)
    assert diagram.count[-1].item() == 2
    assert diagram.ece == pytest.approx(0.475, abs=1e-12)


@pytest.mark.parametrize("bins", [1, 7, 15, 100])
def test_equals_the_slow_loop(bins):
    log_probs, y = drawn()
    assert ece(log_probs, y, bins=bins) == pytest.approx(slow_ece(log_probs, y, bins), abs=1e-12)
    assert ece(log_probs, y, bins=bins) != pytest.approx(slow_ece(log_probs, 3 - y, bins), abs=1e-3)


def test_torchmetrics_agrees_where_no_confidence_is_one():
    log_probs, y = drawn()
    wanted = multiclass_calibration_error(log_probs.exp(), y, num_classes=4, n_bins=15).item()
    assert ece(log_probs, y) == pytest.approx(wanted, abs=1e-6)


def test_adaptive_bins_hold_equal_masses():
    log_probs, y = drawn(n=100)
    diagram = adaptive_reliability(log_probs, y, bins=15)
    assert set(diagram.count.tolist()) == {6.0, 7.0}
    order = confidence(log_probs).argsort()
    groups = [order[[i for i in range(100) if 15 * i // 100 == b]] for b in range(15)]
    right = (log_probs.argmax(-1) == y).double()
    slow = sum(abs((confidence(log_probs) - right)[g].sum().item()) for g in groups) / 100
    assert adaptive_ece(log_probs, y) == pytest.approx(slow, abs=1e-12)


def test_rows_of_one_confidence_share_an_adaptive_bin_whatever_their_order():
    rows, y = rows_of([0.8] * 6 + [0.6, 0.9], [True, False, True, False, True, True, True, True])
    orders = [torch.arange(8), torch.arange(7, -1, -1), torch.tensor([6, 1, 3, 0, 7, 5, 2, 4])]
    figures = {round(adaptive_ece(rows[order], y[order], bins=4), 12) for order in orders}
    assert len(figures) == 1
    assert sorted(adaptive_reliability(rows, y, bins=4).count.tolist()) == [0.0, 0.0, 1.0, 7.0]


def test_the_debiased_form_has_no_bias_and_the_plain_one_has():
    plain, debiased = [], []
    for seed in range(40):
        diagram = reliability(*drawn(n=300, seed=seed))
        plain.append(diagram.ece)
        debiased.append(diagram.debiased)
    mean, spread = sum(debiased) / 40, torch.tensor(debiased).std().item()
    assert abs(mean) < 4 * spread / math.sqrt(40)
    assert min(plain) > 0.01
    assert min(debiased) < 0


def test_hand_worked_debiased_form():
    diagram = reliability(*rows_of([0.9, 0.9, 0.9, 0.5], [True, True, False, True]), bins=2)
    # All four fall into the upper bin: confidence .8, accuracy .75, n = 4.
    assert diagram.debiased == pytest.approx(0.0025 - 0.75 * 0.25 / 3, abs=1e-12)
    assert math.isnan(reliability(*rows_of([0.9], [True])).debiased)


def test_the_score_adds_up_over_shards():
    log_probs, y = drawn()
    parts = [tally((ECE_SCORE,), log_probs[s], y[s]) for s in (slice(0, 100), slice(100, 500))]
    assert (parts[0] + parts[1]).figures()["ece"] == pytest.approx(ece(log_probs, y), abs=1e-14)


def test_ignored_rows_are_dropped_and_none_left_is_refused():
    log_probs, y = drawn()
    masked = y.clone()
    masked[::2] = -100
    for figure in (ece, adaptive_ece):
        assert figure(log_probs, masked) == figure(log_probs[1::2], y[1::2])
        with pytest.raises(ValueError, match="no row"):
            figure(log_probs, torch.full_like(y, -100))
        with pytest.raises(ValueError, match="bins"):
            figure(log_probs, y, bins=0)
    with pytest.raises(ValueError, match="not normalised"):
        ece(log_probs + 1, y)
    assert len(nll(log_probs, masked)) == 250


def test_the_diagram_of_top_tokens_is_that_of_the_rows() -> None:
    log_probs, y = drawn(n=200, seed=3)
    right = log_probs.argmax(-1) == y
    found, wanted = top_reliability(confidence(log_probs), right, bins=7), reliability(log_probs, y, bins=7)
    assert torch.equal(found.count, wanted.count)
    assert found.ece == wanted.ece
    for bad in (torch.tensor([1.5]), torch.tensor([-0.1]), torch.tensor([math.nan])):
        with pytest.raises(ValueError, match="confidences are probabilities"):
            top_reliability(bad, torch.tensor([True]))
    for values, truth in (
        (right[:0].double(), right[:0]),
        (right.double(), right[1:]),
        (right.double(), right.double()),
    ):
        with pytest.raises(ValueError, match="a row or more; got"):
            top_reliability(values, truth)
