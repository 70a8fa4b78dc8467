"""The regressor: its mean, its standard deviation, several targets, a given network."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

import pluria
from pluria.predict import gather, predict

QUICK: dict[str, Any] = {"epochs": 20, "hidden": (16,), "rate": 0.01, "random_state": 0}


@pytest.fixture(scope="module")
def wave() -> tuple[np.ndarray, np.ndarray]:
    """y = 1000 + 30 sin(x) with noise of standard deviation 5."""
    draws = np.random.RandomState(0)
    x = draws.uniform(-3, 3, (1500, 1))
    return x, 1000 + 30 * np.sin(x[:, 0]) + draws.normal(0, 5, 1500)


@pytest.fixture(scope="module")
def fitted(wave: tuple[np.ndarray, np.ndarray]) -> pluria.PluriaRegressor:
    return pluria.PluriaRegressor(**QUICK).fit(*wave)


def test_mean_and_spread_are_those_of_the_members(fitted: pluria.PluriaRegressor, wave: Any) -> None:
    X, y = wave
    outputs, _ = gather(predict(fitted.network_, fitted.ensemble_, [torch.from_numpy(X)]))
    outputs = outputs[..., 0].double()
    mean, std = fitted.predict(X, return_std=True)
    assert mean.shape == std.shape == y.shape
    np.testing.assert_allclose(mean, outputs.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std**2, fitted.noise_ + outputs.var(0, correction=0).numpy(), rtol=1e-4)
    held = fitted.calibration_rows_
    excess = (y[held] - mean[held]) ** 2 - (std[held] ** 2 - fitted.noise_)
    assert fitted.noise_ == pytest.approx(excess.mean(), rel=1e-6)
    np.testing.assert_allclose(fitted.predict_members(X), outputs, rtol=1e-6)
    assert np.array_equal(fitted.predict(X), mean)


def test_it_finds_the_curve_and_the_noise(fitted: pluria.PluriaRegressor) -> None:
    x = np.random.RandomState(1).uniform(-2.5, 2.5, (2000, 1))
    truth = 1000 + 30 * np.sin(x[:, 0])
    mean, std = fitted.predict(x, return_std=True)
    assert np.sqrt(np.mean((mean - truth) ** 2)) < 4
    assert 4 < np.mean(std) < 8  # 5, and what the members add


def test_calibration_rows_are_not_trained_on(fitted: pluria.PluriaRegressor, wave: Any) -> None:
    X, y = wave
    training, held = fitted.training_rows_, fitted.calibration_rows_
    assert sorted([*training, *held]) == list(range(1500))
    assert len(held) == 300
    wrong = y.copy()
    wrong[held] += 100
    other = clone(fitted).fit(X, wrong)
    assert np.array_equal(other.calibration_rows_, held)
    assert np.array_equal(other.predict(X), fitted.predict(X))
    assert other.noise_ > 90**2


def test_equal_members_without_error_are_certain() -> None:
    network = nn.Linear(2, 1)
    X = np.random.RandomState(0).normal(size=(30, 2)).astype(np.float32)
    y = network(torch.from_numpy(X)).detach().numpy()[:, 0]
    sure = pluria.PluriaRegressor(network, format=None).fit(X, y)
    assert sure.noise_ == 0
    mean, std = sure.predict(X, return_std=True)
    np.testing.assert_allclose(mean, y)
    assert np.array_equal(std, np.zeros(30))
    off = pluria.PluriaRegressor(network, format=None).fit(X, y + 3)
    assert off.noise_ == pytest.approx(9, rel=1e-5)


@pytest.mark.parametrize("width", [1, 2])
def test_several_targets(wave: Any, width: int) -> None:
    X, y = wave
    both = np.stack([y, -2 * y], 1)[:, :width]
    model = pluria.PluriaRegressor(**QUICK).fit(X, both)
    mean, std = model.predict(X, return_std=True)
    assert mean.shape == std.shape == (1500, width)
    assert model.noise_.shape == (width,)
    assert model.predict_members(X).shape == (8, 1500, width)
    assert model.score(X, both) > 0.8


def test_a_network_without_an_axis_of_targets() -> None:
    network = nn.Sequential(nn.Linear(2, 1), nn.Flatten(0))
    X, y = torch.randn(30, 2).numpy(), np.arange(30.0)
    model = pluria.PluriaRegressor(network, members=3).fit(X, y)
    assert model.predict(X).shape == (30,)
    with pytest.raises(ValueError, match="1 outputs, and y has 2 targets"):
        pluria.PluriaRegressor(network).fit(X, np.stack([y, y], 1))


def test_pickled(fitted: pluria.PluriaRegressor, wave: Any) -> None:
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict(wave[0]), fitted.predict(wave[0]))
