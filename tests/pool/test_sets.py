"""Prediction sets: thresholds by hand, the library's own sets, coverage over many draws, and what is refused."""

import builtins
import math

import pytest
import torch
from mapie.classification import SplitConformalClassifier

from pluria.pool import PredictionSets, fit_prediction_sets
from pluria.pool.sets import _given

METHODS = ("lac", "aps", "raps")


def drawn(n, seed=0, c=6, sharp=3.0):
    """Log-probabilities that are too sure, and targets."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, c, generator=generator).double() * 2
    return (rows * sharp / 2).log_softmax(-1), torch.multinomial(rows.softmax(-1), 1, generator=generator)[:, 0]


def test_hand_worked_sets():
    rows = torch.tensor([[0.5, 0.3, 0.15, 0.05], [0.97, 0.01, 0.01, 0.01]]).double().log()
    assert PredictionSets("lac", 0.9, 0.8, 4)(rows).int().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    # 0.5 and 0.8 do not pass 0.9, 0.95 does and is taken; a sure row takes its first class.
    assert PredictionSets("aps", 0.9, 0.9, 4)(rows).int().tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    # With a price of 0.2 beyond the first, 0.8 + 0.2 passes.
    assert PredictionSets("raps", 0.9, 0.9, 4, 0.2, 1.0)(rows).int().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
    # None is that likely, so the set is empty.
    assert not bool(PredictionSets("lac", 0.5, 0.2, 4)(rows)[0].any())


def test_the_threshold_is_the_right_order_statistic():
    rows, y = drawn(99)
    scores = 1 - rows.exp().gather(1, y[:, None])[:, 0]
    fitted = fit_prediction_sets(rows, y, level=0.9, method="lac")
    assert fitted.threshold == pytest.approx(float(scores.sort().values[math.ceil(100 * 0.9) - 1]), rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_sets_are_those_of_the_library(method):
    (rows, y), (fresh, _) = drawn(400), drawn(500, seed=1)
    held = SplitConformalClassifier(_given(6), confidence_level=0.8, conformity_score=method, random_state=0)
    theirs = held.conformalize(rows.exp().numpy(), y.numpy()).predict_set(fresh.exp().numpy())[1][:, :, 0]
    ours = fit_prediction_sets(rows, y, level=0.8, method=method)(fresh)
    assert torch.equal(ours, torch.from_numpy(theirs))
    assert 1 < ours.sum(1).double().mean() < 5


@pytest.mark.parametrize("method", METHODS)
def test_coverage_keeps_the_finite_sample_guarantee(method):
    """Over draws of the fitting rows the mean coverage is at least the level; for lac at most 1 / (N + 1) above it."""
    level, covered = 0.8, []
    fresh, truth = drawn(4000, seed=999)
    for seed in range(40):
        sets = fit_prediction_sets(*drawn(150, seed=seed), level=level, method=method, seed=seed)(fresh)
        covered.append(sets.gather(1, truth[:, None]).double().mean())
    mean, error = torch.stack(covered).mean(), torch.stack(covered).std() / 40**0.5
    assert mean > level - 3 * error
    if method == "lac":
        assert mean < level + 1 / 151 + 3 * error


def test_dense_rows_and_ignored_targets():
    rows, y = drawn(400)
    marked = y.masked_fill(torch.arange(400) % 4 == 0, -100)
    fitted = fit_prediction_sets(rows.view(100, 4, 6), marked.view(100, 4))
    assert fitted == fit_prediction_sets(rows[marked >= 0], y[marked >= 0])
    sets = fitted(rows.view(100, 4, 6))
    assert (sets.dtype, sets.shape) == (torch.bool, (100, 4, 6))


@pytest.mark.parametrize("method", METHODS)
def test_classes_that_nobody_has_and_rows_of_nan(method):
    rows, y = drawn(400)
    kept = (y < 4) & (y != 1)
    fitted = fit_prediction_sets(rows[kept], y[kept], method=method)
    assert fitted.classes == 6
    if method == "lac":
        scores = (1 - rows.exp().gather(1, y[:, None])[:, 0])[kept].sort().values
        assert fitted.threshold == pytest.approx(float(scores[math.ceil((len(scores) + 1) * 0.9) - 1]), rel=1e-12)
    rows[0] = torch.nan
    assert bool(fitted(rows)[0].all())


def test_few_rows_are_enough_from_a_number_on():
    rows, y = drawn(400)
    assert fit_prediction_sets(rows[:10], y[:10], level=0.9, method="lac").threshold < 1
    with pytest.raises(ValueError, match="need 10 labelled rows"):
        fit_prediction_sets(rows[:9], y[:9], level=0.9, method="lac")
    with pytest.raises(ValueError, match="need 50 labelled rows"):
        fit_prediction_sets(rows[:49], y[:49], level=0.9, method="raps")


def test_what_does_not_fit_is_refused(monkeypatch):
    rows, y = drawn(60)
    for call, said in (
        (lambda: fit_prediction_sets(rows, y, level=1.0), "0 < level < 1"),
        (lambda: fit_prediction_sets(rows, y, method="best"), "lac, aps or raps"),
        (lambda: PredictionSets("best", 0.9, 0.5, 3), "lac, aps or raps"),
        (lambda: fit_prediction_sets(rows, y.clamp(max=1)), "method='lac'"),
        (lambda: fit_prediction_sets(rows, torch.arange(60).clamp(max=3), method="raps"), "two rows or more"),
        (lambda: fit_prediction_sets(rows * torch.nan, y), "NaN"),
        (lambda: fit_prediction_sets(rows, y)(rows[:, :3]), "fitted on 6 classes"),
    ):
        with pytest.raises(ValueError, match=said):
            call()
    real = builtins.__import__

    def without(name, *rest):
        if name.startswith("mapie"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pluria\[sklearn\]"):
        fit_prediction_sets(rows, y)
