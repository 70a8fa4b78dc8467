"""The classifier: what it answers, which rows it used for what, and its place among scikit-learn's tools."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_iris, make_classification
from sklearn.model_selection import GridSearchCV, cross_val_score
from torch import nn

import pluria
from pluria.predict import gather, predict
from pluria.zoo import read
from pluria.zoo.fit import fit as fit_zoo

QUICK: dict[str, Any] = {"epochs": 10, "hidden": (16,), "rate": 0.01, "random_state": 0}


@pytest.fixture(scope="module")
def noisy() -> tuple[np.ndarray, np.ndarray]:
    """Three classes that overlap."""
    return make_classification(300, 6, n_informative=4, n_classes=3, class_sep=0.7, random_state=0)


@pytest.fixture(scope="module")
def fitted(noisy: tuple[np.ndarray, np.ndarray]) -> pluria.PluriaClassifier:
    return pluria.PluriaClassifier(**QUICK).fit(*noisy)


def test_probabilities_are_the_pool_of_what_predict_gives(fitted: pluria.PluriaClassifier, noisy: Any) -> None:
    x = torch.from_numpy(noisy[0])
    outputs, _ = gather(predict(fitted.network_, fitted.ensemble_, [x]))
    assert len(outputs) == 8
    pooled = pluria.mean_probability(outputs).double()
    wanted = (pooled / fitted.temperature_).softmax(-1)
    found = fitted.predict_proba(noisy[0])
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(fitted.predict_members(noisy[0]), outputs.double().softmax(-1), atol=1e-6)
    assert np.array_equal(fitted.predict(noisy[0]), fitted.classes_[found.argmax(1)])


def test_the_temperature_is_that_of_the_rows_held_out(fitted: pluria.PluriaClassifier, noisy: Any) -> None:
    held = fitted.calibration_rows_
    outputs, _ = gather(predict(fitted.network_, fitted.ensemble_, [torch.from_numpy(noisy[0][held])]))
    wanted = pluria.fit_temperature(pluria.mean_probability(outputs), torch.from_numpy(noisy[1][held])).value
    assert fitted.temperature_ == pytest.approx(wanted, rel=1e-6)
    assert fitted.temperature_ != 1


def test_calibration_rows_are_not_trained_on(fitted: pluria.PluriaClassifier, noisy: Any) -> None:
    X, y = noisy
    training, held = fitted.training_rows_, fitted.calibration_rows_
    assert not set(training) & set(held)
    assert sorted([*training, *held]) == list(range(300))
    assert [np.sum(y[held] == c) for c in range(3)] == [int(0.2 * np.sum(y == c)) for c in range(3)]
    # Whatever their labels are, the network is the same, and the temperature is not.
    wrong = y.copy()
    wrong[held] = np.roll(y[held], 1)
    for c in range(3):
        assert np.sum(wrong == c) == np.sum(y == c)
    other = pluria.PluriaClassifier(**QUICK)
    other._split = lambda *_: (training, held)
    other.fit(X, wrong)
    for name, value in fitted.network_.state_dict().items():
        assert torch.equal(value, other.network_.state_dict()[name])
    assert other.temperature_ == 1000  # no better than chance


def test_a_row_of_weight_zero_is_not_there(noisy: Any) -> None:
    X, y = noisy
    weights = np.where(np.arange(300) % 3 == 0, 0.0, 1.0)
    weighted = pluria.PluriaClassifier(**QUICK).fit(X, y, sample_weight=weights)
    without = pluria.PluriaClassifier(**QUICK).fit(X[weights > 0], y[weights > 0])
    assert np.array_equal(weighted.predict_proba(X), without.predict_proba(X))
    assert set(weighted.training_rows_ % 3) == {1, 2}
    heavy = pluria.PluriaClassifier(**QUICK).fit(X, y, sample_weight=np.where(y == 0, 50.0, 1.0))
    assert np.mean(heavy.predict(X) == 0) > np.mean(without.predict(X) == 0) + 0.1


def test_full_precision_is_the_network_alone(noisy: Any) -> None:
    alone = pluria.PluriaClassifier(**QUICK, format=None, calibration=0).fit(*noisy)
    with torch.inference_mode():
        wanted = alone.network_(torch.from_numpy(noisy[0])).softmax(-1)
    np.testing.assert_allclose(alone.predict_proba(noisy[0]), wanted, atol=1e-6)
    assert (len(alone.ensemble_), alone.temperature_, len(alone.calibration_rows_)) == (1, 1.0, 0)


def test_few_rows_and_rows_that_are_all_right_have_no_temperature() -> None:
    X, y = load_iris(return_X_y=True)
    few = pluria.PluriaClassifier(**QUICK).fit(X[::2], y[::2])
    assert (len(few.training_rows_), few.temperature_) == (75, 1.0)
    apart = pluria.PluriaClassifier(**QUICK).fit(np.vstack([X[:50]] * 3 + [X[50:100]] * 3), [0] * 150 + [1] * 150)
    assert (len(apart.calibration_rows_), apart.temperature_) == (60, 1.0)


def test_a_trained_network_is_only_calibrated() -> None:
    train, test = read("digits", split="train"), read("digits", split="test")
    network = fit_zoo(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), train, epochs=3, batch=50, rate=0.01, seed=0)
    before = pluria.params_of(network)
    calibration, figures = ((half.normalise(half.inputs), half.targets) for half in test.split_half())
    given = pluria.PluriaClassifier(network, members=4).fit(*calibration)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert given.network_ is network
    assert (len(given.training_rows_), len(given.calibration_rows_)) == (0, len(calibration[0]))
    outputs, _ = gather(predict(network, pluria.low_precision(network, members=4), [calibration[0]]))
    wanted = pluria.fit_temperature(pluria.mean_probability(outputs), calibration[1])
    assert given.temperature_ == pytest.approx(wanted.value, rel=1e-6)
    assert given.score(*figures) > 0.8
    named = pluria.PluriaClassifier(network, classes=list("abcdefghij")).fit(calibration[0][:40], ["a", "b"] * 20)
    assert named.predict_proba(figures[0]).shape == (len(figures[0]), 10)
    with pytest.raises(ValueError, match="10 outputs, and y has 2 classes"):
        pluria.PluriaClassifier(network).fit(calibration[0][:40], ["a", "b"] * 20)
    with pytest.raises(ValueError, match="not among `classes`"):
        pluria.PluriaClassifier(network, classes=list("abcdefghij")).fit(calibration[0][:40], ["a", "z"] * 20)


def test_frames_and_labels_that_are_words(noisy: Any) -> None:
    frame = pd.DataFrame(noisy[0], columns=[f"f{i}" for i in range(6)])
    words = pd.Series(np.array(["low", "middle", "high"])[noisy[1]])
    model = pluria.PluriaClassifier(**QUICK).fit(frame, words)
    assert list(model.classes_) == ["high", "low", "middle"]
    assert list(model.feature_names_in_) == list(frame.columns)
    assert set(model.predict(frame)) == {"high", "low", "middle"}
    assert model.score(frame, words) > 0.5
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[frame.columns[::-1]])


def test_pickled_and_cloned(fitted: pluria.PluriaClassifier, noisy: Any) -> None:
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(noisy[0]), fitted.predict_proba(noisy[0]))
    fresh = clone(fitted)
    assert not hasattr(fresh, "classes_")
    assert np.array_equal(fresh.fit(*noisy).predict_proba(noisy[0]), fitted.predict_proba(noisy[0]))
    network = nn.Linear(6, 3)
    twin = clone(pluria.PluriaClassifier(network))
    assert torch.equal(twin.network.weight, network.weight)


def test_searched_and_cross_validated(noisy: Any) -> None:
    search = GridSearchCV(pluria.PluriaClassifier(**QUICK), {"format": [None, "int2"]}, cv=2, scoring="neg_log_loss")
    search.fit(*noisy)
    assert search.best_params_["format"] in (None, "int2")
    assert search.predict(noisy[0]).shape == (300,)
    assert cross_val_score(pluria.PluriaClassifier(**QUICK), *noisy, cv=2).min() > 0.5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pool": "output"}, "pool is 'probability' or 'logit'"),
        ({"calibration": 1.0}, "calibration is a share"),
        ({"format": "int99"}, "int99"),
        ({"members": 0}, "one member or more"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_what_is_refused(noisy: Any, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pluria.PluriaClassifier(**{**QUICK, **options}).fit(*noisy)


def test_other_things_that_are_refused(noisy: Any) -> None:
    X, y = noisy
    with pytest.raises(TypeError, match=r"trained torch\.nn\.Module"):
        pluria.PluriaClassifier("mlp", **QUICK).fit(X, y)
    with pytest.raises(ValueError, match=r"zero for every row|non-zero"):
        pluria.PluriaClassifier(**QUICK).fit(X, y, sample_weight=np.zeros(300))
    with pytest.raises(ValueError, match="sample_weight"):
        pluria.PluriaClassifier(**QUICK).fit(X, y, sample_weight=np.full(300, -1.0))
    with pytest.raises(ValueError, match="Unknown label type"):
        pluria.PluriaClassifier(**QUICK).fit(X, X[:, 0])
