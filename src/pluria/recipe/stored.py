"""Figures of predictions in a file: outputs `[K, N, C]`, targets `[N]` and the members' weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from pluria.core.errors import DataError
from pluria.pool import fit_temperature
from pluria.recipe.measure import Outputs, diversity, scores


def scored(file: Path) -> dict[str, Any]:
    """Scores before and after temperature, and diversity; even rows fit the temperature, odd rows give the figures.

    Raises DataError for a file that is not one of predictions, has no targets, or too few rows.
    """
    try:
        held = load_file(file)
    except (SafetensorError, OSError) as error:
        raise DataError(f"{file}: cannot be read as predictions: {error}") from None
    if "outputs" not in held or "targets" not in held:
        raise DataError(f"{file} holds {', '.join(held) or 'nothing'}; scoring needs outputs and targets")
    if held["outputs"].shape[1] < 2:
        raise DataError(f"{file} has {held['outputs'].shape[1]} row; one half is calibrated on, so two are needed")
    weights = held.get("weights", torch.ones(len(held["outputs"]), dtype=torch.float64))
    try:
        parts = [Outputs.of(held["outputs"][:, start::2], held["targets"][start::2], weights) for start in (0, 1)]
    except ValueError as error:
        raise DataError(f"{file}: {error}") from None
    calibration, figures = parts
    temperature = fit_temperature(calibration.pooled(), calibration.y)
    pooled = figures.pooled()
    return {
        "members": len(weights),
        "rows": {"calibration": len(calibration.y), "figures": len(figures.y)},
        "temperature": temperature.value,
        "scores": scores(pooled, figures.y),
        "scaled": scores(temperature(pooled), figures.y),
        "diversity": diversity(figures),
    }
