"""The bases that scikit-learn gives estimators; without it they can be named, and say what is missing when made."""

from __future__ import annotations

from typing import Any

MISSING = "{} needs scikit-learn, which is not installed: pip install 'pluria[sklearn]'"

try:
    from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
except ImportError:

    class _Missing:
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            raise ImportError(MISSING.format(cls.__name__))

    class BaseEstimator(_Missing):  # type: ignore[no-redef]
        """Stands for scikit-learn's."""

    class ClassifierMixin:  # type: ignore[no-redef]
        """Stands for scikit-learn's."""

    class RegressorMixin:  # type: ignore[no-redef]
        """Stands for scikit-learn's."""


__all__ = ["BaseEstimator", "ClassifierMixin", "RegressorMixin"]
