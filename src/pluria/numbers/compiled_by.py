"""How loops are compiled by Numba. Importing this module imports Numba."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """`function` compiled on its first call, every operation as it is written."""
    return _compiled(function)


def summing(function: Callable[..., Any]) -> Any:
    """The same, but sums of floats may be taken in any order, as vectors take them."""
    return _compiled(function, fastmath={"reassoc", "contract"})


def _compiled(function: Callable[..., Any], **more: Any) -> Any:
    """Kept on disk where some folder for that can be written."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", **more}
    try:
        return numba.njit(cache=True, **options)(function)
    except (RuntimeError, OSError):
        return numba.njit(**options)(function)
