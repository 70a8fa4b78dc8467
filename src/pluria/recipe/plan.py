"""The arms of a run: those the recipe asks for, and the controls that apply to its network and data.

full precision (and refreshed, where arms are) · averaged over views · nearest at each number system ·
Gaussian noise of matched variance · MC dropout where there is dropout · single models at other bit widths
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from pluria.align.refresh import has_batch_norm, refresh
from pluria.core.ensemble import Ensemble
from pluria.core.errors import RecipeError
from pluria.numbers.key import Key
from pluria.predict.batches import call
from pluria.recipe.catalogue import methods
from pluria.recipe.schema import Arm, Recipe
from pluria.sample.dropout import KINDS

SINGLES = ("int2", "int3", "int4", "int5", "int6", "int7", "int8", "bf16")
"""Nearest rounding to these is tried for the best single model within an ensemble's bits."""


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
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-") + f"-seed{self.seed}"


def jobs(recipe: Recipe, model: nn.Module) -> list[Job]:
    """Every arm of the recipe with every seed, controls first; one that repeats another is left out.

    Raises RecipeError where an arm asks for what the network does not have.
    """
    asked = [one for arm in recipe.arms for one in arm.expanded()]
    for arm in asked:
        if arm.refresh and not has_batch_norm(model):
            raise RecipeError(f"arm {arm.method!r} asks for refresh, but the network has no batch norm with statistics")
        if arm.method == "dropout" and not has_dropout(model):
            raise RecipeError("arm 'dropout': the network has no dropout layer with p > 0")
    found: dict[str, Job] = {}
    for control, arm, candidate in [*_controls(recipe, asked, model), *((False, arm, False) for arm in asked)]:
        drawn = arm.method not in ("full_precision", "nearest")
        for seed in recipe.seeds if drawn else recipe.seeds[:1]:
            job = Job(arm_name(arm), control, arm, seed, candidate)
            if job.slug not in found or (found[job.slug].candidate and not candidate):
                found[job.slug] = job
    return list(found.values())


def draw(job: Job, model: nn.Module, unlabelled: list[Any], positions: list[int]) -> tuple[nn.Module, Ensemble]:
    """The network to run and the members at these positions, refreshed on unlabelled inputs where the arm says so."""
    method = next(method for method in methods("sample") if method.name == job.arm.method)
    try:
        made, ensemble = method.make(model, members=job.arm.members, key=Key(job.seed), **job.arm.options)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{job.name}: {error}") from None
    ensemble = ensemble.take(positions)
    return made, refresh(made, ensemble, unlabelled, forward=call) if job.arm.refresh else ensemble


def has_dropout(model: nn.Module) -> bool:
    """Whether some dropout layer would do something."""
    return any(isinstance(module, KINDS) and 0 < module.p < 1 for module in model.modules())


def arm_name(arm: Arm) -> str:
    """A short name: number system, method, coupling, size, and what else differs from the default."""
    options = arm.options
    plain = {"full_precision": "full precision", "gaussian": "Gaussian of matched variance", "dropout": "MC dropout"}
    parts = [format_name(options["format"])] if "format" in options else []
    parts.append(
        options.get("coupling", "stratified") if arm.method == "low_precision" else plain.get(arm.method, arm.method)
    )
    rest = {
        k: v for k, v in options.items() if k not in ("format", "coupling") and (k, v) != ("granularity", "channel")
    }
    parts += [f"{key} {value}" for key, value in rest.items()]
    if arm.refresh:
        parts.append("refreshed")
    if arm.views != ("identity",):
        parts.append(f"{len(arm.views)} views")
    return " ".join(parts) + (f" × {arm.members}" if arm.members > 1 else "")


def format_name(format: Any) -> str:
    """INT-5, FP8-E4M3, ... or the patterns of a mapping."""
    if not isinstance(format, str):
        return json.dumps(format, sort_keys=True)
    return re.sub(r"^INT(?=\d)", "INT-", format.upper())


def _controls(recipe: Recipe, asked: list[Arm], model: nn.Module) -> Iterator[tuple[bool, Arm, bool]]:
    yield True, Arm(method="full_precision", members=1), False
    if not recipe.controls:
        return
    if any(arm.refresh for arm in asked):
        yield True, Arm(method="full_precision", members=1, refresh=True), False
    size = max(arm.members for arm in asked)
    for views in _view_sets(recipe.views, size):
        yield True, Arm(method="full_precision", members=len(views), views=views), False
    rounded = [arm for arm in asked if arm.method == "low_precision"]
    for arm in rounded:
        grid = {k: v for k, v in arm.options.items() if k != "coupling"}
        yield True, Arm(method="nearest", members=1, refresh=arm.refresh, **grid), False
        yield True, Arm(method="gaussian", members=arm.members, **grid), False
    if has_dropout(model):
        yield True, Arm(method="dropout", members=size), False
    if rounded:
        for name in SINGLES:
            yield True, Arm.model_validate({"method": "nearest", "members": 1, "format": name}), True


def _view_sets(views: tuple[str, ...], size: int) -> list[tuple[str, ...]]:
    """The pair (identity, first other view), and as many views as the largest ensemble has members."""
    names = ("identity", *(view for view in views if view != "identity"))
    sets = {names[:2], names[:size]} if len(names) > 1 and size > 1 else set()
    return sorted(sets, key=len)
