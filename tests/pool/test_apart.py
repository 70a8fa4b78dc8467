"""Pools that refuse the rows they were fitted on: every fit, in every form of the rows."""

import pytest
import torch

from pluria.pool import (
    apart,
    fit_conformal,
    fit_extremised,
    fit_gate,
    fit_label_temperatures,
    fit_linear,
    fit_log_linear,
    fit_member_temperatures,
    fit_quantile_weights,
    fit_temperature,
    fit_variance_scale,
    fit_vector_scaling,
    greedy,
    mean_probability,
)

K, N, C = 3, 60, 4
LEVELS = torch.tensor([0.1, 0.4, 0.6, 0.9])
GENERATOR = torch.Generator().manual_seed(0)
X, Y = torch.randn(K, 2 * N, C, generator=GENERATOR), torch.arange(2 * N) % C
PAIRS = torch.rand(2 * N, 2, generator=GENERATOR) + 0.1

MEMBERS = [fit_linear, fit_log_linear, fit_extremised, fit_gate, fit_member_temperatures, greedy]


@pytest.mark.parametrize("fit", MEMBERS, ids=lambda fit: fit.__name__)
def test_rows_of_the_fit_are_refused_and_others_answered(fit):
    pool = apart(fit, X[:, :N], Y[:N])
    plain = fit(X[:, :N], Y[:N])
    wanted = mean_probability(X[:, N:], plain) if isinstance(plain, torch.Tensor) else plain(X[:, N:])
    torch.testing.assert_close(pool(X[:, N:]), wanted)
    with pytest.raises(ValueError, match="fitted on 60 of these 60 rows, such as row 0"):
        pool(X[:, :N])
    with pytest.raises(ValueError, match="fitted on 1 of these 60 rows, such as row 59"):
        pool(torch.cat([X[:, N + 1 :], X[:, 7:8]], 1))


@pytest.mark.parametrize(
    ("fit", "outputs", "y", "options"),
    [
        (fit_temperature, X[0], Y, {}),
        (fit_vector_scaling, X[0], Y, {}),
        (fit_label_temperatures, X[0], (X[1] > 0).long(), {"each": True}),
        (fit_variance_scale, PAIRS, PAIRS[:, 0] + 1, {}),
        (fit_conformal, X[0].sort(-1).values, X[1, :, 0], {"levels": LEVELS}),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_pooled_rows_are_known_too(fit, outputs, y, options):
    pool = apart(fit, outputs[:N], y[:N], **options)
    torch.testing.assert_close(pool(outputs[N:]), fit(outputs[:N], y[:N], **options)(outputs[N:]))
    with pytest.raises(ValueError, match="fitted on 60 of these 60 rows"):
        pool(outputs[:N])


def test_quantiles_with_gaps_and_dense_rows_are_known():
    x = X.clone()
    x[0, 3] = float("nan")
    weights = apart(fit_quantile_weights, x[:, :N], Y[:N].float(), levels=LEVELS, steps=2)
    with pytest.raises(ValueError, match="fitted on 1 of these 1 rows"):
        weights(x[:, 3:4])
    dense = apart(fit_linear, X.view(K, 40, 3, C)[:, :20], Y.view(40, 3)[:20])
    assert dense(X.view(K, 40, 3, C)[:, 20:]).shape == (20, 3, C)
    with pytest.raises(ValueError, match="fitted on 1 of these 21 rows, such as row 0"):
        dense(X.view(K, 40, 3, C)[:, 19:])


def test_another_dtype_order_and_sign_of_zero_hide_no_row():
    x = X.clone()
    x[:, 5] = 0.0
    pool = apart(fit_linear, x[:, :N], Y[:N])
    for other in (x[:, 5:6].double(), -x[:, 5:6], x[:, :N].flip(1)):
        with pytest.raises(ValueError, match="fitted on"):
            pool(other)


def test_features_and_weights_are_handed_on():
    features = torch.rand(2 * N, 2, generator=GENERATOR)
    gate = apart(fit_gate, X[:, :N], Y[:N], features=features[:N])
    torch.testing.assert_close(gate(X[:, N:], features[N:]), gate.pool(X[:, N:], features[N:]))
    pushed, weights = apart(fit_extremised, X[:, :N], Y[:N]), torch.tensor([1.0, 0.0, 0.0])
    torch.testing.assert_close(pushed(X[:, N:], weights), pushed.pool(X[:1, N:]))


def test_outputs_without_rows_are_refused():
    with pytest.raises(ValueError, match=r"axis 1 of the outputs; got \[4\]"):
        apart(fit_linear, X[:, :N], Y[:N])(X[0, 0])
