"""A recipe: a run as data. YAML in, checked against the methods' signatures before any work starts.

network   what is ensembled: a zoo name, an import path or a Hugging Face folder, and a checkpoint
data      labelled rows; half of them calibrate and choose, the other half give the figures
arms      methods with their options; `each` expands into one arm for every combination
views     label-preserving views of the inputs: a control, and what members may see
"""

from __future__ import annotations

import difflib
import itertools
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pluria.core.errors import RecipeError
from pluria.recipe.catalogue import Method, methods


class Strict(BaseModel):
    """Frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Training(Strict):
    """How the network is trained where there is no checkpoint: a small network, in seconds."""

    epochs: int = Field(ge=1)
    batch: int = Field(64, ge=1)
    rate: float = Field(0.003, gt=0)
    seed: int = 0


class Network(Strict):
    """`model` is a zoo name, an import path `package.module:Class` (which runs that code) or a Hugging Face folder."""

    model: str
    arguments: dict[str, Any] = {}
    checkpoint: str | None = None
    train: Training | None = None


class Data(Strict):
    """`reader` is a reader's name or an import path to a function that returns a Dataset."""

    reader: str
    arguments: dict[str, Any] = {}
    rows: int | None = Field(None, ge=2)


class Arm(BaseModel):
    """One method with its options, which are the keys this class does not name."""

    model_config = ConfigDict(extra="allow", frozen=True)

    method: str
    members: int = Field(8, ge=1)
    refresh: bool = False
    views: tuple[str, ...] = ("identity",)
    each: dict[str, list[Any]] = {}

    @property
    def options(self) -> dict[str, Any]:
        """The method's own options."""
        return dict(self.model_extra or {})

    def expanded(self) -> list[Arm]:
        """One arm for every combination of the values in `each`."""
        plain = self.model_dump(exclude={"each"})
        return [
            Arm(**{**plain, **dict(zip(self.each, values, strict=True))})
            for values in itertools.product(*self.each.values())
        ]


class Recipe(Strict):
    """A whole run. `seeds` repeat every drawn arm; figures are means over them."""

    title: str = "A low-precision ensemble"
    network: Network
    data: Data
    calibration: Data | Literal["half"] = "half"
    training: Data | None = None
    arms: tuple[Arm, ...] = Field(min_length=1)
    views: tuple[str, ...] = ()
    controls: bool = True
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    batch: int = Field(256, ge=1)
    refresh_rows: int = Field(1000, ge=2)
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    threads: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _methods_exist(self) -> Recipe:
        for arm in self.arms:
            for one in arm.expanded():
                check_arm(one)
        return self


def check_arm(arm: Arm) -> Method:
    """The arm's method; RecipeError with the nearest name where the method or one of its options does not exist."""
    table = {method.name: method for method in methods("sample") if method.maker}
    if arm.method not in table:
        raise RecipeError(f"unknown method {arm.method!r}{nearest_name(arm.method, list(table))}")
    options = table[arm.method].options()
    for name in arm.options:
        if name not in options:
            known = [*options, *Arm.model_fields]
            raise RecipeError(f"method {arm.method!r} has no option {name!r}{nearest_name(name, known)}")
    missing = [n for n, p in options.items() if p.default is p.empty and n not in arm.options]
    if missing:
        raise RecipeError(f"method {arm.method!r} needs {', '.join(missing)}")
    return table[arm.method]


def read_recipe(path: str | Path, changes: list[str] | None = None) -> Recipe:
    """A recipe from a YAML file, with `key=value` changes (`data.rows=500`, `arms.0.members=4`) put in.

    Relative paths in the recipe are left as they are: they are relative to where the command runs. Raises RecipeError.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        held = yaml.safe_load(text)
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(held, dict):
        raise RecipeError(f"{path} holds {type(held).__name__}; a recipe is a mapping with network, data and arms")
    for change in changes or []:
        _put(held, change)
    return make_recipe(held, str(path))


def make_recipe(held: dict[str, Any], what: str = "the recipe") -> Recipe:
    """A checked recipe from plain data; RecipeError says where it is wrong and which name may be meant."""
    try:
        return Recipe.model_validate(held)
    except ValidationError as error:
        lines = [_said(problem) for problem in error.errors()]
        raise RecipeError(f"{what} is not a recipe:\n  " + "\n  ".join(lines)) from None


def nearest_name(name: str, known: list[str]) -> str:
    """'; did you mean ...? There are ...'."""
    near = difflib.get_close_matches(name, known, 1)
    return (f"; did you mean {near[0]!r}?" if near else ".") + f" There are: {', '.join(known)}"


_PARTS: dict[str, type[BaseModel]] = {
    "network": Network, "data": Data, "calibration": Data, "training": Data, "train": Training,
}  # fmt: skip


def _said(problem: Any) -> str:
    place = [str(part) for part in problem["loc"]]
    if problem["type"] == "extra_forbidden":
        owner = next((_PARTS[part] for part in reversed(place[:-1]) if part in _PARTS), Recipe)
        return f"unknown key {'.'.join(place)}{nearest_name(place[-1], list(owner.model_fields))}"
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{'.'.join(place) or 'the recipe'}: {message}" + (
        "" if problem["type"] == "missing" else f" (got {problem['input']!r})"
    )


def _put(held: dict[str, Any], change: str) -> None:
    path, equals, value = change.partition("=")
    if not equals or not path:
        raise RecipeError(f"--set takes key=value, such as data.rows=500; got {change!r}")
    *way, last = path.split(".")
    at: Any = held
    try:
        for part in way:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        at[int(last) if isinstance(at, list) else last] = yaml.safe_load(value)
    except (ValueError, IndexError, TypeError, AttributeError):
        raise RecipeError(f"--set {change!r}: there is no place {path!r} in the recipe") from None
