"""Many models out of one; one answer out of many: ensembles of neural networks on a budget.

>>> import torch, pluria
>>> model = torch.nn.Linear(4, 3)
>>> ensemble = pluria.low_precision(model, format="int5", members=8)
>>> len(ensemble), ensemble.params(0)["weight"].shape
(8, torch.Size([3, 4]))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pluria.align.rebasin import rebasin
    from pluria.align.refresh import refresh
    from pluria.core.ensemble import Ensemble, join, single, stack
    from pluria.core.errors import CheckpointError, DataError, EngineError, FileFormatError, PluriaError, RecipeError
    from pluria.core.model import Role, roles
    from pluria.core.params import Params, params_of
    from pluria.merge.leafwise import leafwise
    from pluria.numbers.format import number_format
    from pluria.numbers.key import Key
    from pluria.pool.average import mean_logit, mean_probability
    from pluria.pool.temperature import fit_temperature
    from pluria.predict.gather import gather
    from pluria.recipe.choose import choose
    from pluria.recipe.merging.files import merge_files
    from pluria.recipe.merging.spec import Merge
    from pluria.report.compare import Comparison, compare
    from pluria.sample.choose import choose_format
    from pluria.sample.compensated import compensated, gptq
    from pluria.sample.dropout import dropout
    from pluria.sample.gaussian import gaussian, isotropic
    from pluria.sample.moments import Moments, moments
    from pluria.sample.noise import noise, output_error
    from pluria.sample.plane import path, plane
    from pluria.sample.rounding import low_precision, nearest
    from pluria.store.checkpoint import read_checkpoint
    from pluria.store.export import export_member, export_members, packed
    from pluria.store.file import load, load_all, save
    from pluria.store.folder import export_folder
    from pluria.wrap.classifier import PluriaClassifier
    from pluria.wrap.module import EnsembleModule
    from pluria.wrap.regressor import PluriaRegressor

__version__ = "0.1.0"

_WHERE = {
    "align.rebasin": ("rebasin",),
    "align.refresh": ("refresh",),
    "core.ensemble": ("Ensemble", "join", "single", "stack"),
    "core.errors": ("CheckpointError", "DataError", "EngineError", "FileFormatError", "PluriaError", "RecipeError"),
    "core.model": ("Role", "roles"),
    "core.params": ("Params", "params_of"),
    "merge.leafwise": ("leafwise",),
    "numbers.format": ("number_format",),
    "numbers.key": ("Key",),
    "pool.average": ("mean_logit", "mean_probability"),
    "pool.temperature": ("fit_temperature",),
    "predict.gather": ("gather",),
    "recipe.choose": ("choose",),
    "recipe.merging.files": ("merge_files",),
    "recipe.merging.spec": ("Merge",),
    "report.compare": ("Comparison", "compare"),
    "sample.choose": ("choose_format",),
    "sample.compensated": ("compensated", "gptq"),
    "sample.dropout": ("dropout",),
    "sample.gaussian": ("gaussian", "isotropic"),
    "sample.moments": ("Moments", "moments"),
    "sample.noise": ("noise", "output_error"),
    "sample.plane": ("path", "plane"),
    "sample.rounding": ("low_precision", "nearest"),
    "store.checkpoint": ("read_checkpoint",),
    "store.export": ("export_member", "export_members", "packed"),
    "store.file": ("load", "load_all", "save"),
    "store.folder": ("export_folder",),
    "wrap.classifier": ("PluriaClassifier",),
    "wrap.module": ("EnsembleModule",),
    "wrap.regressor": ("PluriaRegressor",),
}
_PACKAGES = (
    "align",
    "check",
    "core",
    "language",
    "merge",
    "numbers",
    "pool",
    "predict",
    "recipe",
    "report",
    "sample",
    "score",
    "store",
    "train",
    "wrap",
    "zoo",
)
_OF = {name: f"pluria.{module}" for module, names in _WHERE.items() for name in names}

__all__ = [
    "CheckpointError",
    "Comparison",
    "DataError",
    "EngineError",
    "Ensemble",
    "EnsembleModule",
    "FileFormatError",
    "Key",
    "Merge",
    "Moments",
    "Params",
    "PluriaClassifier",
    "PluriaError",
    "PluriaRegressor",
    "RecipeError",
    "Role",
    "choose",
    "choose_format",
    "compare",
    "compensated",
    "dropout",
    "export_folder",
    "export_member",
    "export_members",
    "fit_temperature",
    "gather",
    "gaussian",
    "gptq",
    "isotropic",
    "join",
    "leafwise",
    "load",
    "load_all",
    "low_precision",
    "mean_logit",
    "mean_probability",
    "merge_files",
    "moments",
    "nearest",
    "noise",
    "number_format",
    "output_error",
    "packed",
    "params_of",
    "path",
    "plane",
    "read_checkpoint",
    "rebasin",
    "refresh",
    "roles",
    "save",
    "single",
    "stack",
]


def __getattr__(name: str) -> Any:
    """Names and packages are imported when they are first used, so that `import pluria` costs nothing."""
    if name in _PACKAGES:
        return importlib.import_module(f"pluria.{name}")
    if name not in _OF:
        raise AttributeError(f"module 'pluria' has no attribute {name!r}")
    return getattr(importlib.import_module(_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
