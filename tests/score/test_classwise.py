"""Class-wise calibration: by hand, by a slow loop, and against torchmetrics where two classes make it one."""

import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from pluria.score import classwise_ece, classwise_reliability


def drawn(n=400, c=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    log_probs = (2 * torch.randn(n, c, generator=generator, dtype=torch.float64)).log_softmax(-1)
    return log_probs, torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]


def slow(log_probs, y, bins, equal, threshold):
    total = kept = 0.0
    for c in range(log_probs.shape[1]):
        cells = [(p, t == c) for p, t in zip(log_probs.exp()[:, c].tolist(), y.tolist(), strict=True) if p >= threshold]
        values = sorted(p for p, _ in cells)
        for b in range(bins):
            if equal == "mass":
                inside = [(p, o) for p, o in cells if values.index(p) * bins // len(values) == b]
            else:
                inside = [(p, o) for p, o in cells if min(int(p * bins), bins - 1) == b]
            total += abs(sum(p for p, _ in inside) - sum(o for _, o in inside))
        kept += len(cells)
    return total / kept


def test_hand_worked_cells():
    rows = torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4]], dtype=torch.float64).log()
    diagrams = classwise_reliability(rows, torch.tensor([0, 1, 0]), bins=2)
    assert diagrams.count.tolist() == [[0, 3], [3, 0]]
    assert diagrams.confidence[0, 1].item() == pytest.approx(2.2 / 3)
    assert diagrams.accuracy[1, 0].item() == pytest.approx(1 / 3)
    assert diagrams.ece == pytest.approx(0.2 / 3, abs=1e-12)


@pytest.mark.parametrize("equal", ["width", "mass"])
@pytest.mark.parametrize("threshold", [0.0, 0.05])
def test_equals_the_slow_loop(equal, threshold):
    log_probs, y = drawn()
    options = {"bins": 7, "equal": equal, "threshold": threshold}
    assert classwise_ece(log_probs, y, **options) == pytest.approx(slow(log_probs, y, **options), abs=1e-12)
    assert classwise_ece(log_probs, 3 - y, **options) != pytest.approx(slow(log_probs, y, **options), abs=1e-3)


def test_each_class_is_the_binary_error_of_torchmetrics():
    log_probs, y = drawn()
    own = [
        binary_calibration_error(log_probs.exp()[:, c].contiguous(), (y == c).long(), n_bins=15).item()
        for c in range(4)
    ]
    assert classwise_ece(log_probs, y) == pytest.approx(sum(own) / 4, abs=1e-6)


def test_the_debiased_square_is_near_zero_where_the_truth_is():
    figures = [classwise_reliability(*drawn(seed=seed)).debiased for seed in range(40)]
    mean, spread = sum(figures) / 40, torch.tensor(figures).std().item()
    assert abs(mean) < 4 * spread / 40**0.5
    assert min(classwise_ece(*drawn(seed=seed)) for seed in range(5)) > 0.01


def test_ignored_rows_and_what_is_refused():
    log_probs, y = drawn()
    masked = torch.where(torch.arange(400) % 2 == 0, -100, y)
    assert classwise_ece(log_probs, masked) == classwise_ece(log_probs[1::2], y[1::2])
    with pytest.raises(ValueError, match="'width' or 'mass'"):
        classwise_ece(log_probs, y, equal="size")
    with pytest.raises(ValueError, match="threshold"):
        classwise_ece(log_probs, y, threshold=1.0)
    with pytest.raises(ValueError, match="reaches"):
        classwise_ece(torch.zeros(4, 4).log_softmax(-1), torch.arange(4), threshold=0.9)
    with pytest.raises(ValueError, match="bins"):
        classwise_ece(log_probs, y, bins=0)
