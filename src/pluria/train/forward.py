"""Directional derivatives in forward mode, without the warning that torch gives about itself."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.func import jvp


def directional(function: Callable[..., Tensor], at: tuple[Any, ...], along: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    """The function's value, and its derivative at a point along a direction of the point's structure."""
    with warnings.catch_warnings():
        # The first use scripts torch's own decompositions, by a function that torch has deprecated.
        warnings.filterwarnings("ignore", message=".*torch.jit.script.*", category=DeprecationWarning)
        value, change = jvp(function, at, along)[:2]
    return value, change
