"""From YAML to a checked recipe, and from what is wrong with it to words.

file, changes -> plain data -> Recipe, or RecipeError with the place in the file and the name that may be meant
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from pluria.core.errors import RecipeError
from pluria.recipe.plain import read_plain
from pluria.recipe.schema import TEXTS, Recipe, said


def read_recipe(path: str | Path, changes: list[str] | None = None) -> Recipe:
    """A recipe from a YAML file, with `key=value` changes (`data.rows=500`, `arms.0.members=4`) put in.

    Relative paths in the recipe are left as they are: they are relative to where the command runs. Raises RecipeError.
    """
    return make_recipe(read_plain(path, changes), str(path))


def make_recipe(held: dict[str, Any], what: str = "the recipe") -> Recipe:
    """A checked recipe from plain data; RecipeError says where it is wrong and which name may be meant."""
    try:
        return Recipe.model_validate(held)
    except ValidationError as error:
        problems = error.errors()
        lines = dict.fromkeys(said(problem) for problem in problems if not _follows(problem, problems))
        raise RecipeError(f"{what} is not a recipe:\n  " + "\n  ".join(lines)) from None
    except RecipeError as error:
        raise RecipeError(f"{what}: {error}") from None


def _follows(problem: Any, problems: list[Any]) -> bool:
    """Whether a problem is there because of another, or about a form of a key that was not meant."""
    place = problem["loc"]
    inner = any(len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in problems)
    return inner or (place[-1] in TEXTS and isinstance(problem["input"], dict))
