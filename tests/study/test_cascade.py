"""Study: a window serves selective prediction, a threshold serves accuracy, and each does little for the other.

Two small networks on 10,000 rows in ten classes; windows and thresholds are fitted on other rows than those that judge.
The second network is asked of a fifth of the rows, so at 1.2 times the cost of one network in place of 2.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pluria.pool import Cascade, fit_cascade, mean_probability
from pluria.score import error, max_probability, risk_coverage
from pluria.zoo import Dataset, network
from pluria.zoo.fit import fit

pytestmark = pytest.mark.study
RISK = 0.05


def problem(seed: int) -> tuple[Dataset, Dataset, Dataset]:
    """10,000 rows each to train, to fit and to judge: ten classes of two clusters in twenty dimensions."""
    sklearn = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    x, y = sklearn.make_classification(
        30_000, 20, n_informative=12, n_redundant=4, n_classes=10, class_sep=1.5, random_state=seed
    )
    inputs, targets = torch.from_numpy(x).float(), torch.from_numpy(y).long()
    names = tuple(map(str, range(10)))
    parts = zip(inputs.split(10_000), targets.split(10_000), strict=True)
    return tuple(Dataset(one, other, names, "made") for one, other in parts)  # type: ignore[return-value]


def outputs(train: Dataset, parts: list[Dataset], seed: int) -> list[Tensor]:
    """Logits `[2, N, C]` of two networks on each part."""
    nets = [
        fit(network("mlp", inputs=20, classes=10, hidden=[128, 128], seed=10 * seed + i), train, epochs=12, batch=128,
            rate=0.002, seed=10 * seed + i)
        for i in range(2)
    ]  # fmt: skip
    with torch.no_grad():
        return [torch.stack([net(part.inputs) for net in nets]) for part in parts]


def figures(rule: Cascade, logits: Tensor, y: Tensor) -> tuple[float, float, float]:
    """Accuracy, coverage at a risk of 5 %, and members asked."""
    answers = rule(logits.double())
    wrong = error(answers, y)
    curve = risk_coverage(max_probability(answers), wrong)
    return 1 - float(wrong.mean()), curve.coverage_at(RISK), rule.spent(rule.asked(logits)).members


def test_windows_serve_decisions_and_thresholds_serve_accuracy() -> None:
    gains = []
    for seed in range(3):
        train, fitting, judging = problem(seed)
        known, new = outputs(train, [fitting, judging], seed)
        shape = {"pool": "mean_probability", "score": "max_probability"}
        window = fit_cascade(known, fitting.targets, task="coverage", at=RISK, width=0.1, **shape)  # type: ignore[arg-type]
        cut = float(max_probability(mean_probability(known[:1].double())).quantile(0.8))
        threshold = Cascade(((0,), (1,)), ((cut, None),), 10, (1.0, 1.0), "mean_probability")
        ends = [Cascade(((0,), (1,)), (end,), 10, (1.0, 1.0), "mean_probability") for end in (None, (None, None))]
        found = [figures(rule, new, judging.targets) for rule in (*ends, window, threshold)]
        assert found[2][2] == pytest.approx(1.2, abs=0.03)
        assert found[3][2] == pytest.approx(1.2, abs=0.03)
        gains.append([[one[i] - found[0][i] for one in found[1:]] for i in (0, 1)])
    accuracy, coverage = torch.tensor(gains).mean(0)
    for what, values in (("accuracy", accuracy), ("coverage at a risk of 5 %", coverage)):
        print(f"gain in {what:25} both members {values[0]:.4f}, window {values[1]:.4f}, threshold {values[2]:.4f}")
    assert accuracy[0] > 0.003
    assert coverage[0] > 0.01
    assert coverage[1] >= 0.6 * coverage[0]  # the window keeps the gain in coverage
    assert accuracy[2] >= 0.8 * accuracy[0]  # the threshold keeps the gain in accuracy
    assert coverage[2] <= 0.5 * coverage[0]
    assert accuracy[1] <= 0.5 * accuracy[0]
