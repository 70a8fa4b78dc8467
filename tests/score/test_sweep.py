"""The swept number of bins: by hand, by a slow loop, and its smaller bias."""

import pytest
import torch

from pluria.score import adaptive_ece, sweep_ece, sweep_reliability


def drawn(n=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    log_probs = (1.5 * torch.randn(n, 4, generator=generator, dtype=torch.float64)).log_softmax(-1)
    return log_probs, torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]


def rows_of(confidences, right):
    p = torch.tensor(confidences, dtype=torch.float64)
    return torch.stack([p, 1 - p], 1).log(), torch.tensor([0 if ok else 1 for ok in right])


def test_hand_worked_stop():
    # Right: 0 1 0 1 by confidence. Two bins have accuracies .5 and .5, three have 0.5, 0 and 1: the second decreases.
    rows = rows_of([0.6, 0.7, 0.8, 0.9], [False, True, False, True])
    assert sweep_reliability(*rows).accuracy.tolist() == [0.5, 0.5]
    assert sweep_ece(*rows) == pytest.approx((0.15 + 0.35) / 2, abs=1e-12)


def test_all_right_takes_a_bin_for_each_row_and_one_row_is_enough():
    rows = rows_of([0.6, 0.7, 0.8], [True, True, True])
    assert len(sweep_reliability(*rows).count) == 3
    assert sweep_ece(*rows_of([0.75], [True])) == pytest.approx(0.25)


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_slow_loop(seed):
    log_probs, y = drawn(seed=seed)
    order = log_probs.amax(-1).argsort().tolist()
    right = (log_probs.argmax(-1) == y).tolist()
    bins = 1
    while True:
        groups = [
            [right[i] for place, i in enumerate(order) if place * (bins + 1) // 300 == b] for b in range(bins + 1)
        ]
        means = [sum(g) / len(g) for g in groups]
        if means != sorted(means):
            break
        bins += 1
    assert sweep_ece(log_probs, y) == adaptive_ece(log_probs, y, bins=bins)


def test_calibrated_rows_look_better_than_with_fifteen_bins():
    swept, fixed = (sum(f(*drawn(n=200, seed=s)) for s in range(30)) for f in (sweep_ece, adaptive_ece))
    assert swept < 0.9 * fixed
