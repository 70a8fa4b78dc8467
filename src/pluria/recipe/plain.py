"""YAML to plain data, with 1e-3 a number, as everybody means it (YAML 1.1 takes it for text), and with changes put in.

Nothing here knows what a recipe is: a merge reads such files too, and the checks of recipes are slow to import.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any

import yaml

from pluria.core.errors import RecipeError


class _Loader(yaml.SafeLoader):
    pass


EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", EXPONENT, list("-+0123456789"))


def plain(text: str) -> Any:
    """The data of a YAML text; yaml.YAMLError for what is none.

    >>> plain("{rate: 1e-3, steps: 5, name: e3}")
    {'rate': 0.001, 'steps': 5, 'name': 'e3'}
    """
    return yaml.load(text, Loader=_Loader)


def read_plain(path: str | Path, changes: list[str] | None = None) -> dict[str, Any]:
    """The plain data of a YAML file with changes put in, not checked further; RecipeError where it is no mapping."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        held = plain(text)
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(held, dict):
        raise RecipeError(f"{path} holds {type(held).__name__}; a recipe is a mapping with network, data and arms")
    for change in changes or []:
        put(held, change)
    return held


def put(held: dict[str, Any], change: str) -> None:
    """Put a change `key=value` into a plain recipe; RecipeError where there is no such place."""
    path, equals, value = change.partition("=")
    if not equals or not path:
        raise RecipeError(f"--set takes key=value, such as data.rows=500; got {change!r}")
    *way, last = path.split(".")
    at: Any = held
    try:
        for part in way:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        at[int(last) if isinstance(at, list) else last] = plain(value)
    except yaml.YAMLError:
        raise RecipeError(f"--set {change!r}: the value is not valid YAML") from None
    except (ValueError, IndexError, TypeError, AttributeError):
        raise RecipeError(f"--set {change!r}: there is no place {path!r} in the recipe") from None


def nearest_name(name: str, known: list[str]) -> str:
    """'; did you mean ...? There are ...'."""
    near = difflib.get_close_matches(name, known, 1)
    return (f"; did you mean {near[0]!r}?" if near else ".") + f" There are: {', '.join(known)}"
