"""Ensembles for people and programs: a module, scikit-learn estimators, a transformers pipeline.

Names are imported when they are first used: scikit-learn and transformers are extras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pluria.wrap.classifier import PluriaClassifier
    from pluria.wrap.module import EnsembleModule
    from pluria.wrap.pipeline import ensemble_pipeline
    from pluria.wrap.regressor import PluriaRegressor

__all__ = ["EnsembleModule", "PluriaClassifier", "PluriaRegressor", "ensemble_pipeline"]

_OF = {
    "EnsembleModule": "module",
    "PluriaClassifier": "classifier",
    "PluriaRegressor": "regressor",
    "ensemble_pipeline": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _OF:
        raise AttributeError(f"module 'pluria.wrap' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pluria.wrap.{_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
