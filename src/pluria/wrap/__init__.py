"""Ensembles for people and programs: a module, scikit-learn estimators, a transformers pipeline, callbacks of trainers.

Names are imported when they are first used: scikit-learn, transformers and Lightning are extras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pluria.wrap.classifier import PluriaClassifier
    from pluria.wrap.lightning import LightningCollectors
    from pluria.wrap.module import EnsembleModule
    from pluria.wrap.pipeline import ensemble_pipeline
    from pluria.wrap.regressor import PluriaRegressor
    from pluria.wrap.trainer import TrainerCollectors

__all__ = [
    "EnsembleModule",
    "LightningCollectors",
    "PluriaClassifier",
    "PluriaRegressor",
    "TrainerCollectors",
    "ensemble_pipeline",
]

_OF = {
    "EnsembleModule": "module",
    "LightningCollectors": "lightning",
    "PluriaClassifier": "classifier",
    "PluriaRegressor": "regressor",
    "TrainerCollectors": "trainer",
    "ensemble_pipeline": "pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _OF:
        raise AttributeError(f"module 'pluria.wrap' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pluria.wrap.{_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
