"""The arms of a run: those the recipe asks for, and the controls that apply to its network and data.

full precision (and refreshed, where arms are) · averaged over views · nearest at each number system ·
Gaussian noise of matched variance · MC dropout where there is dropout · single models at other bit widths
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from pluria.align.refresh import has_batch_norm, refresh
from pluria.core.ensemble import Ensemble
from pluria.core.errors import RecipeError
from pluria.numbers.format import number_format
from pluria.numbers.key import Key
from pluria.predict.batches import call
from pluria.recipe.catalogue import Method, methods
from pluria.recipe.schema import Arm, Recipe
from pluria.sample.dropout import KINDS

SINGLES = ("int2", "int3", "int4", "int5", "int6", "int7", "int8", "bf16")
"""Nearest rounding to these is tried for the best single model within an ensemble's bits."""

LONGEST = 120
"""Characters of an arm's name in its folder's name; what is longer is cut and hashed."""

FULL = "full precision"
"""Name of the control that everything is held against."""


@dataclass(frozen=True)
class Job:
    """One arm with one seed: what is predicted and kept under `slug`."""

    name: str
    control: bool
    arm: Arm
    seed: int
    candidate: bool = False

    @property
    def slug(self) -> str:
        """Folder name of its predictions."""
        words = re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")
        if len(words) > LONGEST:
            words = words[:LONGEST] + "-" + hashlib.blake2b(self.name.encode(), digest_size=6).hexdigest()
        return f"{words}-seed{self.seed}"

    def plain(self) -> Job:
        """The same without refresh, which needs inputs and changes no grid; its statistics are counted in `figures`."""
        return replace(self, arm=self.arm.model_copy(update={"refresh": False}))


def jobs(recipe: Recipe, model: nn.Module) -> list[Job]:
    """Every arm of the recipe with every seed, controls first; one that repeats another is left out.

    A single model that is asked for beside drawn arms is one more control. Raises RecipeError where an arm asks for
    what the network does not have, and where nothing is left to hold against full precision.
    """
    asked = [filled(one) for arm in recipe.arms for one in arm.expanded()]
    _check_asked(asked, model)
    beside = any(drawn(arm) for arm in asked)
    controls = ((control, filled(arm), candidate) for control, arm, candidate in _controls(recipe, asked, model))
    found: dict[str, Job] = {}
    for control, arm, candidate in [*controls, *((beside and not drawn(arm), arm, False) for arm in asked)]:
        for seed in recipe.seeds if drawn(arm) else recipe.seeds[:1]:
            job = _named(Job(arm_name(arm), control, arm, seed, candidate), found)
            if job.slug not in found or (found[job.slug].candidate and not candidate):
                found[job.slug] = job
    return _with_main(list(found.values()), asked)


def drawn(arm: Arm) -> bool:
    """Whether an arm's members depend on the seed."""
    return arm.method not in ("full_precision", "nearest")


def same(one: Arm, other: Arm) -> bool:
    """Whether two arms do the same; the order of patterns counts, the first that matches is taken."""
    return one.model_dump_json() == other.model_dump_json()


def filled(arm: Arm) -> Arm:
    """The arm with its method's defaults put in, so that arms are equal where they do the same.

    A single model has one member, or one for each view, unless the recipe says otherwise.
    """
    defaults = {n: p.default for n, p in _method(arm).options().items() if p.default is not p.empty}
    size = {} if drawn(arm) or "members" in arm.model_fields_set else {"members": len(arm.views)}
    given = {**defaults, **arm.model_dump(exclude_unset=True), **size}
    if isinstance(given.get("format"), str):
        given["format"] = _one_name(given["format"])
    return Arm.model_validate(given)


def draw(job: Job, model: nn.Module, unlabelled: list[Any], positions: list[int]) -> tuple[nn.Module, Ensemble]:
    """The network to run and the members at these positions, refreshed on unlabelled inputs where the arm says so."""
    try:
        made, ensemble = _method(job.arm).make(model, members=job.arm.members, key=Key(job.seed), **job.arm.options)
        ensemble = ensemble.take(positions)
        return made, refresh(made, ensemble, unlabelled, forward=call) if job.arm.refresh else ensemble
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{job.name}: {error}") from None


def has_dropout(model: nn.Module) -> bool:
    """Whether some dropout layer would do something."""
    return any(isinstance(module, KINDS) and 0 < module.p < 1 for module in model.modules())


def arm_name(arm: Arm) -> str:
    """A short name: number system, method, coupling, size, and what else differs from the default."""
    options, usual = arm.options, {n: p.default for n, p in _method(arm).options().items()}
    plain = {"full_precision": FULL, "gaussian": "Gaussian of matched variance", "dropout": "MC dropout"}
    parts = [format_name(options["format"])] if "format" in options else []
    parts.append(
        options.get("coupling", "stratified") if arm.method == "low_precision" else plain.get(arm.method, arm.method)
    )
    rest = {k: v for k, v in options.items() if k not in ("format", "coupling") and v != usual[k]}
    parts += [f"{key} {value}" for key, value in rest.items()]
    if arm.refresh:
        parts.append("refreshed")
    if arm.views != ("identity",):
        parts.append(f"{len(arm.views)} views")
    return " ".join(parts) + (f" × {arm.members}" if arm.members > 1 else "")


def format_name(format: Any) -> str:
    """INT-5, FP8-E4M3, ... or the patterns of a mapping."""
    if not isinstance(format, str):
        return json.dumps(format)
    return re.sub(r"^INT(?=\d)", "INT-", format.upper())


def _method(arm: Arm) -> Method:
    return next(method for method in methods("sample") if method.name == arm.method)


def _one_name(format: str) -> str:
    """The number system under its own name: INT-5 is int5. One that does not exist is met when it is drawn."""
    try:
        return number_format(format).name
    except ValueError:
        return format


def _check_asked(asked: list[Arm], model: nn.Module) -> None:
    for arm in asked:
        if arm.refresh and not has_batch_norm(model):
            raise RecipeError(f"arm {arm.method!r} asks for refresh, but the network has no batch norm with statistics")
        if arm.method == "dropout" and not has_dropout(model):
            raise RecipeError("arm 'dropout': the network has no dropout layer with p > 0")


def _named(job: Job, found: dict[str, Job]) -> Job:
    """The job, with a number behind its name where another arm has the same one or the same folder."""
    name, number = job.name, 1
    while job.slug in found and not same(found[job.slug].arm, job.arm):
        number += 1
        job = replace(job, name=f"{name} ({number})")
    return job


def _with_main(found: list[Job], asked: list[Arm]) -> list[Job]:
    """The jobs, where all are controls with those that were asked for set free, so that there is something to show."""
    if not all(job.control for job in found):
        return found
    freed = [replace(job, control=job.name == FULL or not any(same(job.arm, arm) for arm in asked)) for job in found]
    if all(job.control for job in freed):
        raise RecipeError("the arms ask for the network itself only; add one to hold against it, such as low_precision")
    return freed


def _controls(recipe: Recipe, asked: list[Arm], model: nn.Module) -> Iterator[tuple[bool, Arm, bool]]:
    yield True, Arm(method="full_precision", members=1), False
    if not recipe.controls:
        return
    if any(arm.refresh for arm in asked):
        yield True, Arm(method="full_precision", members=1, refresh=True), False
    size = max(arm.members for arm in asked)
    for views in _view_sets(recipe.views, asked):
        yield True, Arm(method="full_precision", members=len(views), views=views), False
    rounded = [arm for arm in asked if arm.method == "low_precision"]
    for arm in rounded:
        grid = {k: v for k, v in arm.options.items() if k != "coupling"}
        drawn_alike = {"members": arm.members, "refresh": arm.refresh, "views": arm.views}
        yield True, Arm(method="nearest", members=1, refresh=arm.refresh, **grid), False
        yield True, Arm.model_validate({"method": "gaussian", **drawn_alike, **grid}), False
    if has_dropout(model):
        yield True, Arm(method="dropout", members=size), False
    for where in dict.fromkeys(json.dumps(arm.options["where"]) for arm in rounded):
        for name in SINGLES:
            options = {"format": name, "where": json.loads(where)}
            yield True, Arm.model_validate({"method": "nearest", "members": 1, **options}), True


def _view_sets(views: tuple[str, ...], asked: list[Arm]) -> list[tuple[str, ...]]:
    """The pair (identity, first other view), and as many views as each ensemble has members; arms' own views count."""
    every = [*views, *(view for arm in asked for view in arm.views)]
    names = tuple(dict.fromkeys(["identity", *every]))
    sizes = {2, *(arm.members for arm in asked)} if max(arm.members for arm in asked) > 1 else set()
    return sorted({names[:size] for size in sizes if len(names[:size]) > 1}, key=len)
