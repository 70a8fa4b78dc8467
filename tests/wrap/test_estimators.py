"""scikit-learn's own checks of estimators; none is expected to fail."""

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from pluria.wrap import PluriaClassifier, PluriaRegressor

SMALL: dict[str, Any] = {"epochs": 25, "hidden": (24,), "rate": 0.02}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
@parametrize_with_checks([PluriaClassifier(**SMALL), PluriaRegressor(**SMALL)])
def test_check(estimator: Any, check: Any) -> None:
    check(estimator)
