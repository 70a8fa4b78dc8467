"""Labels as class numbers, and the names of the classes they point to."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pluria.core.errors import DataError


def class_numbers(labels: npt.NDArray[Any], *, name: str) -> Tensor:
    """Integer labels `[N]`, `[N, 1]` or dense `[N, ...]` -> int64; DataError for any other type."""
    if labels.dtype.kind not in "biu":
        raise DataError(f"{name}: targets are {labels.dtype}, they must be integers that number the classes from 0")
    numbers = torch.from_numpy(labels.astype(np.int64))
    return numbers.flatten() if labels.ndim == 2 and labels.shape[1] == 1 else numbers


def class_names(classes: Sequence[str] | int | None, targets: Tensor) -> tuple[str, ...]:
    """The given names, "0".."C-1" for a number of classes, or as many as the largest target asks for."""
    if classes is None:
        classes = int(targets.max()) + 1 if targets.numel() else 0
    return tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)
