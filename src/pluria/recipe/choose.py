"""Choosing a network's number system by running it: without labels by closeness to full precision, or by labels.

without labels  the fewest bits with mean KL(full precision || pooled members) <= tolerance
with labels     the smallest NLL of the pooled members
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble, single
from pluria.core.params import params_of
from pluria.numbers.key import Key
from pluria.pool import mean_probability
from pluria.predict import Batches, gather, predict
from pluria.sample import Choice, choose_format, low_precision
from pluria.score import flatten, nll
from pluria.score.divergence import kl

BY_BITS = ("int2", "int3", "int4", "int5", "int6", "int7", "int8")


def choose(
    model: nn.Module,
    batches: Batches,
    *,
    tolerance: float | None = None,
    formats: Sequence[str] = BY_BITS,
    members: int = 8,
    key: Key | int = 0,
    class_axis: int = 1,
    **options: Any,
) -> tuple[str, Choice]:
    """The number system for low-precision members of `model`, and the value of every one that was tried.

    batches    re-iterable validation batches; labels are needed only where there is no tolerance
    tolerance  given: nats of mean KL from full precision that are allowed, no labels are read; None: by NLL
    formats    candidates in order of rising bits
    options    of `low_precision`: coupling, granularity, where

    Raises ValueError where labels are needed and missing.
    """
    full, targets = _pooled(model, single(params_of(model)), batches, class_axis)
    if tolerance is None and targets is None:
        raise ValueError("choosing by NLL needs targets in the batches; give a tolerance to choose without labels")

    def value(format: str) -> float:
        ensemble = low_precision(model, format=format, members=members, key=key, **options)
        pooled, _ = _pooled(model, ensemble, batches, class_axis)
        if tolerance is not None or targets is None:
            return float(kl(full.flatten(0, -2), pooled.flatten(0, -2)).mean())
        rows, y = flatten(pooled[None], targets)
        return float(nll(rows[0], y).mean())

    return choose_format(formats, value, tolerance=tolerance)


def _pooled(model: nn.Module, ensemble: Ensemble, batches: Batches, class_axis: int) -> tuple[Tensor, Tensor | None]:
    outputs, targets = gather(predict(model, ensemble, batches, class_axis=class_axis))
    return mean_probability(outputs.to(torch.float64)), targets
