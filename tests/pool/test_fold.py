"""Answers out of fold: every row by a fit that has not seen it."""

import pytest
import torch
from torch.nn.functional import nll_loss

from pluria.pool import fit_linear, fit_log_linear, greedy, mean_probability, out_of_fold


def labelled(members=3, n=100, c=3):
    generator = torch.Generator().manual_seed(0)
    y = torch.randint(c, (n,), generator=generator)
    return torch.randn(members, n, c, generator=generator).double() + torch.nn.functional.one_hot(y, c), y


def test_equals_the_folds_one_by_one():
    x, y = labelled()
    pooled = out_of_fold(fit_linear, x, y, folds=4)
    for fold in range(4):
        kept = torch.arange(100) % 4 != fold
        torch.testing.assert_close(pooled[~kept], fit_linear(x[:, kept], y[kept])(x[:, ~kept]))


def test_a_fit_never_sees_the_rows_it_answers():
    x, y = labelled()
    names = torch.tensor([7, 7, 3, 3, 3] * 20)
    seen = []

    def fit(rows, targets):
        seen.append(rows[0, :, 0].tolist())
        return lambda others: others.mean(0)

    out_of_fold(fit, x, y, folds=names)
    assert seen == [x[0, names == 7, 0].tolist(), x[0, names == 3, 0].tolist()]


def test_it_is_less_flattering_than_the_rows_of_the_fit():
    x, y = labelled(members=10)
    inside = nll_loss(fit_log_linear(x, y, ridge=0.0)(x), y)
    assert inside < nll_loss(out_of_fold(lambda *rows: fit_log_linear(*rows, ridge=0.0), x, y), y)


def test_a_fit_that_gives_plain_weights():
    x, y = labelled()
    kept = torch.arange(100) % 2 == 1
    wanted = mean_probability(x[:, ~kept], greedy(x[:, kept], y[kept]))
    torch.testing.assert_close(out_of_fold(greedy, x, y, folds=2)[~kept], wanted)


def test_dense_rows_stay_dense():
    x, y = labelled()
    pooled = out_of_fold(fit_linear, x.view(3, 25, 4, 3), y.view(25, 4))
    assert pooled.shape == (25, 4, 3)


def test_what_does_not_fit_is_refused():
    x, y = labelled()
    for folds in (0, 1, torch.zeros(100, dtype=torch.long)):
        with pytest.raises(ValueError, match="two folds or more"):
            out_of_fold(fit_linear, x, y, folds=folds)
    for folds in (torch.arange(50), torch.rand(100)):
        with pytest.raises(ValueError, match="folds must be integers"):
            out_of_fold(fit_linear, x, y, folds=folds)
    with pytest.raises(ValueError, match="y must have"):
        out_of_fold(fit_linear, x, y[:50])
