"""Figures of predictions in a file: outputs `[K, N, C]`, targets `[N]`, the members' weights, and who was asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from pluria.core.errors import DataError
from pluria.recipe.measure import diversity, scores
from pluria.recipe.outputs import Outputs
from pluria.recipe.pools import answer, best_pool, calibrated
from pluria.zoo.dataset import IGNORED


def scored(file: Path) -> dict[str, Any]:
    """Scores before and after temperature, and diversity, of the rows that did not fit the temperature.

    Rows are dealt out alternately, class by class: one half fits, the other gives the figures. Raises DataError for a
    file that is not one of predictions, has no targets, or too few rows.
    """
    held = _read(file)
    outputs, y = held["outputs"], held["targets"]
    weights = held.get("weights", torch.ones(len(outputs), dtype=torch.float64))
    asked = held.get("asked")
    if asked is not None:
        weights = weights[:, None] * asked
    order = y.argsort(stable=True) if y.ndim == 1 else torch.arange(len(y))
    try:
        halves = [order[start::2].sort().values for start in (0, 1)]
        calibration, figures = (Outputs.of(outputs[:, rows], y[rows], _of_rows(weights, y, rows)) for rows in halves)
        fitted = answer(best_pool([calibrated(calibration)]), calibration)
        return {
            "members": len(weights),
            "rows": {"calibration": len(calibration.y), "figures": len(figures.y)},
            "temperature": fitted.temperature.value,
            "pool": fitted.pool,
            "scores": scores(figures.pooled(), figures.y),
            "scaled": scores(fitted(figures), figures.y),
            "diversity": diversity(figures),
            **({} if asked is None else {"asked": float(asked[:, halves[1]].double().sum(0).mean())}),
        }
    except (ValueError, TypeError) as error:
        raise DataError(f"{file}: {error}") from None


def _of_rows(weights: Tensor, y: Tensor, rows: Tensor) -> Tensor:
    """Weights `[K]`, or those `[K, N]` of some rows without the ignored ones."""
    return weights if weights.ndim == 1 else weights[:, rows][:, y[rows] != IGNORED]


def _read(file: Path) -> dict[str, Tensor]:
    try:
        held = load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file}: cannot be read as predictions: {error}") from None
    if "outputs" not in held or "targets" not in held:
        raise DataError(f"{file} holds {', '.join(held) or 'nothing'}; scoring needs outputs and targets")
    outputs, y = held["outputs"], held["targets"]
    if outputs.ndim < 3 or outputs.shape[1:-1] != y.shape:
        shapes = f"{list(outputs.shape)} and {list(y.shape)}"
        raise DataError(f"{file}: outputs and targets have the shapes {shapes}; wanted [K, N, ..., C] and [N, ...]")
    asked = held.get("asked")
    if asked is not None and (asked.dtype != torch.bool or asked.shape != outputs.shape[:2] or y.ndim > 1):
        raise DataError(f"{file}: who was asked is bool [K, N], of outputs [K, N, C]; got {list(asked.shape)}")
    if len(y) < 2:
        raise DataError(f"{file} has {len(y)} row; one half is calibrated on, so two are needed")
    return held
