"""What a search is asked: a recipe whose arms span the space, and budgets.

    recipe.yaml, with `search:` besides   or   a network and rows   ->   Recipe, Budget

Where the recipe has no arms, the space is that of `arms_for`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError, model_validator

from pluria.core.errors import RecipeError
from pluria.recipe.controls import SHIFTS
from pluria.recipe.parts import Strict
from pluria.recipe.plain import nearest_name, read_plain
from pluria.recipe.pools import CASCADE, POOLS
from pluria.recipe.reading import make_recipe
from pluria.recipe.schema import Recipe

TAKEN = ("mean_probability", "mean_logit", "median_probability", "fit_log_linear", "fit_linear", "greedy", CASCADE)
"""Pools that are tried where none are named."""

FORMATS = ("int3", "int4", "int5", "int6")
COUPLINGS = ("stratified", "antithetic", "independent")
PLACEHOLDER = [{"method": "full_precision"}]


class Budget(Strict):
    """What may be spent. `forwards` is for the search itself: one is one member over all calibration rows.

    `memory_bits` are of all members together, in the smaller of two packed forms; `inference_forwards` are members that
    answer an example, on average where a cascade asks them; `trainings` are networks, each trained by itself, that an
    ensemble is made of. `seed` is that of every drawn member.
    """

    forwards: float = Field(200, gt=0, allow_inf_nan=False)
    memory_bits: float | None = Field(None, gt=0, allow_inf_nan=False)
    inference_forwards: int | None = Field(None, ge=1)
    trainings: int | None = Field(None, ge=1)
    pools: tuple[str, ...] = Field(TAKEN, min_length=1)
    seed: int = Field(0, ge=0)

    @property
    def reach(self) -> int | None:
        """The most members of an ensemble: twice those that may answer an example, where a cascade may ask fewer."""
        asked = self.inference_forwards
        return asked if asked in (None, 1) or CASCADE not in self.pools else 2 * asked

    @model_validator(mode="after")
    def _known(self) -> Budget:
        for name in self.pools:
            if name not in POOLS:
                raise RecipeError(f"search.pools: no pool {name!r}{nearest_name(name, list(POOLS))}")
        return self


def read_search(
    given: str | dict[str, Any], changes: list[str] | None = None, **budgets: Any
) -> tuple[Recipe, Budget, bool]:
    """Recipe, budgets, and whether the recipe has arms of its own, from a YAML file or from plain data.

    `budgets` that are not None stand over those under the key `search`. Raises RecipeError.
    """
    held = read_plain(Path(given), changes) if isinstance(given, str) else dict(given)
    asked = held.pop("search", None) or {}
    if not isinstance(asked, dict):
        raise RecipeError(f"search: wanted a mapping with {', '.join(Budget.model_fields)}; got {asked!r}")
    budget = _budget({**asked, **{name: value for name, value in budgets.items() if value is not None}})
    own = bool(held.get("arms"))
    if "seeds" in held:
        raise RecipeError("a search draws with one seed: give it as `search.seed`, and leave `seeds` out")
    recipe = make_recipe({**held, "arms": held.get("arms") or PLACEHOLDER, "controls": False, "seeds": [budget.seed]})
    return recipe, budget, own


def arms_for(recipe: Recipe, *, images: bool) -> Recipe:
    """The recipe with the arms that are tried where it names none: every axis, crossed where it makes sense."""
    seen = list((SHIFTS if images else ()) if recipe.views is None else recipe.views)
    views = [["identity"], *([seen] if len(seen) > 1 else [])]
    names = list(recipe.named)
    networks = [[name] for name in names] + ([names] if len(names) > 1 else [])
    one: dict[str, Any] = {"networks": networks}
    every: dict[str, Any] = {"views": views, "networks": networks}
    arms: list[dict[str, Any]] = [
        {"method": "full_precision", "each": {"views": views, "networks": networks}},
        {"method": "nearest", "each": {"format": [*FORMATS, "int8"], **one}},
        {"method": "gptq", "refresh": False, "each": {"format": list(FORMATS[:2]), **one}},
        {"method": "low_precision", "each": {"format": list(FORMATS), "coupling": list(COUPLINGS), **every}},
        {"method": "compensated", "each": {"format": list(FORMATS[:3]), "coupling": list(COUPLINGS[::2]), **every}},
    ]
    return make_recipe({**recipe.model_dump(mode="json", exclude_unset=True), "arms": arms})


def _budget(given: dict[str, Any]) -> Budget:
    try:
        return Budget.model_validate(given)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            name = ".".join(map(str, problem["loc"]))
            if problem["type"] == "extra_forbidden":
                lines.append(f"unknown key search.{name}{nearest_name(name, list(Budget.model_fields))}")
            else:
                lines.append(f"search.{name}: {problem['msg']} (got {problem['input']!r})")
        raise RecipeError("\n  ".join(lines)) from None
