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
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from pluria.core.errors import RecipeError
from pluria.recipe.catalogue import Method, methods
from pluria.zoo.views import view


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
    views: Annotated[tuple[str, ...], Field(min_length=1)] = ("identity",)
    each: dict[str, Annotated[list[Any], Field(min_length=1)]] = {}

    @property
    def options(self) -> dict[str, Any]:
        """The method's own options."""
        return dict(self.model_extra or {})

    def expanded(self) -> list[Arm]:
        """One arm for every combination of the values in `each`."""
        plain = self.model_dump(exclude={"each"}, exclude_unset=True)
        return [
            Arm.model_validate({**plain, **dict(zip(self.each, values, strict=True))})
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
    class_axis: int = 1
    refresh_rows: int = Field(1000, ge=2)
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    threads: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        for place, arm in enumerate(self.arms):
            try:
                for one in arm.expanded():
                    check_arm(one)
            except ValidationError as error:
                lines = [_said(problem) for problem in error.errors()]
                raise RecipeError(f"arms.{place}: a value of `each` does not fit: {'; '.join(lines)}") from None
            except RecipeError as error:
                raise RecipeError(f"arms.{place}: {error}") from None
        _check_views("views", self.views)
        _check_rows(self)
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
    for name, value in arm.options.items():
        _check_type(name, value, options[name].annotation)
    _check_views("views", arm.views)
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
        problems = error.errors()
        lines = dict.fromkeys(_said(problem) for problem in problems if not _follows(problem, problems))
        raise RecipeError(f"{what} is not a recipe:\n  " + "\n  ".join(lines)) from None
    except RecipeError as error:
        raise RecipeError(f"{what}: {error}") from None


def nearest_name(name: str, known: list[str]) -> str:
    """'; did you mean ...? There are ...'."""
    near = difflib.get_close_matches(name, known, 1)
    return (f"; did you mean {near[0]!r}?" if near else ".") + f" There are: {', '.join(known)}"


_PARTS: dict[str, type[BaseModel]] = {
    "network": Network, "data": Data, "calibration": Data, "training": Data, "train": Training,
}  # fmt: skip


def _check_type(name: str, value: Any, wanted: Any) -> None:
    """Whether an option is of the type that the method's signature gives it: a number is no text, 1 is no yes."""
    try:
        TypeAdapter(wanted).validate_python(value, strict=True)
    except ValidationError as error:
        said = dict.fromkeys(str(problem["msg"]) for problem in error.errors())
        raise RecipeError(f"option {name!r}: {'; or '.join(said)} (got {value!r})") from None


def _check_views(what: str, names: tuple[str, ...]) -> None:
    for name in names:
        try:
            view(name)
        except ValueError as error:
            raise RecipeError(f"{what}: {error}") from None


def _check_rows(recipe: Recipe) -> None:
    """Rows that calibrate or train must not be told to give the figures; nothing that is given goes unused."""
    if recipe.calibration == recipe.data:
        raise RecipeError("calibration: these are the rows of `data`; give other ones, or leave it out to halve them")
    if recipe.network.train is not None and recipe.network.checkpoint is not None:
        raise RecipeError("network: give a checkpoint or `train`, not both")
    if (recipe.network.train is None) is not (recipe.training is None):
        raise RecipeError("`network.train` (how) and `training` (the rows) are given together; one is missing")


UNION = ("Data", "literal['half']")
"""What pydantic puts into the place of a problem under `calibration`, which is either."""

WORDS = {
    "missing": "is missing",
    "too_short": "is empty",
    "tuple_type": "wanted a list",
    "list_type": "wanted a list",
    "dict_type": "wanted a mapping",
    "model_type": "wanted a mapping",
}
"""Kinds of problems in the words of YAML."""


def _follows(problem: Any, problems: list[Any]) -> bool:
    """Whether a problem is there because of another, or about a form of `calibration` that was not meant."""
    place = problem["loc"]
    inner = any(len(other["loc"]) > len(place) and other["loc"][: len(place)] == place for other in problems)
    return inner or (UNION[1] in place and isinstance(problem["input"], dict))


def _said(problem: Any) -> str:
    place = [str(part) for part in problem["loc"] if part not in UNION]
    kind, path = problem["type"], ".".join(place) or "the recipe"
    if kind == "extra_forbidden":
        owner = next((_PARTS[part] for part in reversed(place[:-1]) if part in _PARTS), Recipe)
        return f"unknown key {path}{nearest_name(place[-1], list(owner.model_fields))}"
    given = "" if kind in ("missing", "too_short") else f" (got {problem['input']!r})"
    message = WORDS.get(kind, str(problem["msg"]).removeprefix("Value error, "))
    return f"{path}: {message}{given}"


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
    except yaml.YAMLError:
        raise RecipeError(f"--set {change!r}: the value is not valid YAML") from None
    except (ValueError, IndexError, TypeError, AttributeError):
        raise RecipeError(f"--set {change!r}: there is no place {path!r} in the recipe") from None
