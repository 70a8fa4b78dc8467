"""Whether a value is of the type that a method's signature gives it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pluria.core.errors import RecipeError


def check_finite(name: str, value: Any) -> None:
    """Raise RecipeError for NaN or Inf, anywhere in an option's value."""
    if isinstance(value, float) and not math.isfinite(value):
        raise RecipeError(f"option {name!r}: numbers are finite (got {value!r})")
    if isinstance(value, list | tuple | Mapping):
        for each in value.values() if isinstance(value, Mapping) else value:
            check_finite(name, each)


def check_type(name: str, value: Any, wanted: Any) -> None:
    """Whether an option is of the type that the method's signature gives it: a number is no text, 1 is no yes."""
    from pydantic import (  # here, since it is slow to import and many merges have no options
        TypeAdapter,
        ValidationError,
    )

    try:
        TypeAdapter(wanted).validate_python(value, strict=True)
    except ValidationError as error:
        said = dict.fromkeys(str(problem["msg"]) for problem in error.errors())
        raise RecipeError(f"option {name!r}: {'; or '.join(said)} (got {value!r})") from None
