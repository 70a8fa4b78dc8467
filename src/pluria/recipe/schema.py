"""A recipe: a run as data. YAML in, checked against the methods' signatures before any work starts.

network   what is ensembled: a zoo name, an import path or a Hugging Face folder, and a checkpoint
networks  several of them by name: their members answer as one ensemble
data      labelled rows; half of them calibrate and choose, the other half give the figures
arms      methods with their options; `each` expands into one arm for every combination
views     label-preserving views of the inputs: a control, and what members may see
shifted   changed copies of the figure rows, and `outside` rows of other classes: what is known of not knowing
"""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pluria.core.errors import RecipeError
from pluria.predict.backends import PLAIN, Name
from pluria.recipe.catalogue import methods
from pluria.recipe.method import Method
from pluria.recipe.parts import Data, Members, Network, Strict, Training
from pluria.recipe.plain import nearest_name
from pluria.recipe.pools import POOLS
from pluria.recipe.typed import check_type
from pluria.zoo.shifts import SHIFTS
from pluria.zoo.views import view

ONLY = "network"
"""The name of a recipe's only network."""


class Arm(BaseModel):
    """One method with its options, which are the keys this class does not name.

    `members` is of each network. Left open, `networks` means all of them, and `refresh` both, without and with it,
    where a network has batch norm, and `pool` the recipe's, or the better of two averages. `beyond` says whether
    shifted and outside rows are looked at too.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    method: str
    networks: tuple[str, ...] = ()
    members: int = Field(8, ge=1)
    refresh: bool | None = None
    beyond: bool = True
    views: Annotated[tuple[str, ...], Field(min_length=1)] = ("identity",)
    pool: str | None = None
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
    network: Network | None = None
    networks: dict[str, Network] = Field(default_factory=dict)
    data: Data
    calibration: Data | Literal["half"] = "half"
    training: Data | None = None
    shifted: dict[str, dict[str, float]] = Field(default_factory=dict)
    shifted_rows: int | None = Field(None, ge=2)
    outside: dict[str, Data] = Field(default_factory=dict)
    arms: tuple[Arm, ...] = Field(min_length=1)
    views: tuple[str, ...] | None = None
    pool: str | None = None
    controls: bool = True
    seeds: tuple[int, ...] = Field((0,), min_length=1)
    batch: int = Field(256, ge=1)
    class_axis: int = 1
    unlabelled_rows: int = Field(1000, ge=2)
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    backend: Name | Literal["auto"] = "loop"
    threads: int | None = Field(None, ge=1)

    @property
    def named(self) -> dict[str, Network]:
        """The networks by name; a single one has no name of its own."""
        return {ONLY: self.network} if self.network is not None else dict(self.networks)

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if (self.network is None) is not bool(self.networks):
            raise RecipeError("network: name one `network`, or several `networks` by name; one of the two")
        for place, arm in enumerate(self.arms):
            try:
                for one in arm.expanded():
                    check_arm(one)
                    _check_names(one.networks, self)
            except ValidationError as error:
                lines = [said(problem) for problem in error.errors()]
                raise RecipeError(f"arms.{place}: a value of `each` does not fit: {'; '.join(lines)}") from None
            except RecipeError as error:
                raise RecipeError(f"arms.{place}: {error}") from None
        _check_views("views", self.views or ())
        _check_pool(self.pool)
        _check_rows(self)
        _check_shifts(self)
        if self.backend not in PLAIN and (self.channels_last or self.dtype != "float32"):
            raise RecipeError(
                f"backend: {self.backend!r} keeps its own dtype and order; leave out dtype, channels_last"
            )
        return self


def check_arm(arm: Arm) -> Method:
    """The arm's method; RecipeError with the nearest name where the method or one of its options does not exist."""
    found = _checked(arm, "sample")
    _check_views("views", arm.views)
    _check_pool(arm.pool)
    return found


def method_of_training(how: Members) -> Method:
    """The training's method; RecipeError as `check_arm` says."""
    return _checked(how, "train")


def _checked(asked: Arm | Members, verb: str) -> Method:
    table = {method.name: method for method in methods(verb) if method.maker}
    if asked.method not in table:
        raise RecipeError(f"unknown method {asked.method!r}{nearest_name(asked.method, list(table))}")
    options = table[asked.method].options()
    for name in asked.options:
        if name not in options:
            known = [*options, *type(asked).model_fields]
            raise RecipeError(f"method {asked.method!r} has no option {name!r}{nearest_name(name, known)}")
    missing = [n for n, p in options.items() if p.default is p.empty and n not in asked.options]
    if missing:
        raise RecipeError(f"method {asked.method!r} needs {', '.join(missing)}")
    for name, value in asked.options.items():
        check_type(name, value, options[name].annotation)
    return table[asked.method]


def _check_views(what: str, names: tuple[str, ...]) -> None:
    for name in names:
        try:
            view(name)
        except ValueError as error:
            raise RecipeError(f"{what}: {error}") from None


def _check_pool(name: str | None) -> None:
    if name is not None and name not in POOLS:
        raise RecipeError(f"pool: no pool {name!r} for arms{nearest_name(name, list(POOLS))}")


def _check_rows(recipe: Recipe) -> None:
    """Rows that calibrate or train must not be told to give the figures; nothing that is given goes unused."""
    if recipe.calibration == recipe.data:
        raise RecipeError("calibration: these are the rows of `data`; give other ones, or leave it out to halve them")
    for name, network in recipe.named.items():
        if network.train is not None and network.checkpoint is not None:
            raise RecipeError(f"{name}: give a checkpoint or `train`, not both")
        if isinstance(network.members, Members):
            try:
                method_of_training(network.members)
            except RecipeError as error:
                raise RecipeError(f"{name}.members: {error}") from None
    if any(network.trains for network in recipe.named.values()) is not (recipe.training is not None):
        raise RecipeError(
            "`train` or `members` of a network (how) and `training` (the rows) are given together; one is missing"
        )


def _check_names(names: tuple[str, ...], recipe: Recipe) -> None:
    """Arms name networks that there are, each once."""
    for name in names:
        if name not in recipe.named:
            raise RecipeError(f"no network {name!r}{nearest_name(name, list(recipe.named))}")
    if len(set(names)) < len(names):
        raise RecipeError(f"a network is named twice in {list(names)}; several members of it are `members`")


def _check_shifts(recipe: Recipe) -> None:
    for name, changes in recipe.shifted.items():
        for change in changes:
            if change not in SHIFTS:
                raise RecipeError(f"shifted.{name}: no change {change!r}{nearest_name(change, list(SHIFTS))}")
        if not changes:
            raise RecipeError(f"shifted.{name}: no change is named; there are: {', '.join(SHIFTS)}")


PARTS: dict[str, type[BaseModel]] = {
    "network": Network, "networks": Network, "data": Data, "calibration": Data, "training": Data, "outside": Data,
    "train": Training, "members": Members,
}  # fmt: skip
"""Whose keys stand under these."""

UNION = ("Data", "literal['half']", "Members")
"""What pydantic puts into the place of a problem under `calibration` and `members`, which are either of two things."""

TEXTS = ("literal['half']", "str")
"""Of these the ones that are texts."""

WORDS = {
    "missing": "is missing",
    "too_short": "is empty",
    "tuple_type": "wanted a list",
    "list_type": "wanted a list",
    "dict_type": "wanted a mapping",
    "model_type": "wanted a mapping",
}
"""Kinds of problems in the words of YAML."""


def said(problem: Any) -> str:
    """A problem that pydantic found, in the words of YAML."""
    place = [str(part) for part in problem["loc"] if part not in UNION]
    kind, path = problem["type"], ".".join(place) or "the recipe"
    if kind == "extra_forbidden":
        owner = next((PARTS[part] for part in reversed(place[:-1]) if part in PARTS), Recipe)
        return f"unknown key {path}{nearest_name(place[-1], list(owner.model_fields))}"
    given = "" if kind in ("missing", "too_short") else f" (got {problem['input']!r})"
    message = WORDS.get(kind, str(problem["msg"]).removeprefix("Value error, "))
    return f"{path}: {message}{given}"
