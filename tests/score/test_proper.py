"""NLL, error and Brier score: hand-worked, against scikit-learn, and least at the truth."""

import math

import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss

from pluria.score import brier, error, nll


def drawn(n=300, c=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    log_probs = (torch.randn(n, c, generator=generator, dtype=torch.float64) * 2).log_softmax(-1)
    return log_probs, torch.randint(c, (n,), generator=generator)


def test_hand_worked_row():
    rows, y = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).log(), torch.tensor([1])
    assert nll(rows, y).item() == pytest.approx(-math.log(0.3), abs=1e-15)
    assert brier(rows, y).item() == pytest.approx(0.25 + 0.49 + 0.04, abs=1e-15)
    assert error(rows, y).item() == 1.0


def test_scikit_learn_agrees():
    log_probs, y = drawn()
    probs = log_probs.exp().numpy()
    assert nll(log_probs, y).mean().item() == pytest.approx(log_loss(y.numpy(), probs), rel=1e-12)
    two, truth = drawn(c=2)
    wanted = brier_score_loss(truth.numpy(), two.exp()[:, 1].numpy())
    assert brier(two, truth).mean().item() == pytest.approx(2 * wanted, rel=1e-12)


@pytest.mark.parametrize("score", [nll, brier])
def test_proper_scores_are_least_at_the_truth(score):
    truth = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    classes = torch.arange(3)

    def expected(forecast):
        return float((truth * score(forecast.log().expand(3, 3), classes)).sum())

    generator = torch.Generator().manual_seed(1)
    others = torch.rand(200, 3, generator=generator, dtype=torch.float64) + 1e-3
    for forecast in others / others.sum(1, keepdim=True):
        assert expected(forecast) > expected(truth)


@pytest.mark.parametrize("score", [nll, brier, error])
def test_ignored_rows_are_dropped(score):
    log_probs, y = drawn()
    masked = y.clone()
    masked[::3] = -100
    kept = masked != -100
    assert torch.equal(score(log_probs, masked), score(log_probs, y)[kept])
    assert score(log_probs, torch.full_like(y, -100)).shape == (0,)
    skipping_zero = score(log_probs, y, ignore_index=0)
    assert torch.equal(skipping_zero, score(log_probs, y)[y != 0])


@pytest.mark.parametrize("score", [nll, brier, error])
def test_the_result_is_float64_whatever_comes_in(score):
    log_probs, y = drawn()
    assert score(log_probs.float(), y.int()).dtype == torch.float64


def test_a_tie_goes_to_the_first_class_and_an_impossible_target_costs_infinity():
    assert error(torch.full((2, 2), 0.5).log(), torch.tensor([0, 1])).tolist() == [0.0, 1.0]
    certain = torch.tensor([[0.0, -torch.inf]])
    assert nll(certain, torch.tensor([1])).item() == math.inf
    assert brier(certain, torch.tensor([1])).item() == 2.0


def test_shapes_that_do_not_fit_are_refused():
    log_probs, y = drawn()
    with pytest.raises(ValueError, match="do not fit"):
        nll(log_probs, y[:-1])
    with pytest.raises(ValueError, match="do not fit"):
        brier(log_probs[None], y)
