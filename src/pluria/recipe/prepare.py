"""Everything a run needs, read and checked before any heavy work.

recipe -> networks with their checkpoints, rows, jobs
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pluria.core.errors import DataError
from pluria.core.model import working_copy
from pluria.core.params import params_of
from pluria.predict import first, logits
from pluria.predict.batches import call
from pluria.recipe.brought import brought_along, trained_members
from pluria.recipe.check import (
    check_apart,
    check_draws,
    check_enough,
    check_outputs,
    check_pools,
    check_unlabelled,
    check_views,
    repeated,
)
from pluria.recipe.folder import RunFolder, digest, way
from pluria.recipe.parts import Members
from pluria.recipe.plan import Job, jobs
from pluria.recipe.resolve import Rows, data_rows, device_of, load_network, trained, training_rows
from pluria.recipe.schema import ONLY, Recipe
from pluria.recipe.source import Source, Sources, unlabelled
from pluria.zoo.dataset import Dataset

Progress = Callable[[str, float, float], None]
"""Told what is being done, how much of it is done, and how much there is: epochs, or forwards of members."""


def quiet(what: str, done: float, total: float) -> None:
    """Progress that shows nothing."""


@dataclass(frozen=True)
class Prepared:
    """A recipe whose networks and rows are read and whose jobs are known; nothing has been predicted yet."""

    recipe: Recipe
    sources: Sources
    rows: Rows
    jobs: Sequence[Job]
    notes: Sequence[str] = ()
    twice: int = 0
    """Figure rows that are among the calibration rows."""


def prepare(
    recipe: Recipe,
    progress: Progress = quiet,
    *,
    train: bool = True,
    folder: RunFolder | None = None,
    restart: bool = False,
) -> Prepared:
    """Read and check everything a run needs, and train where the recipe says so (and `train` too).

    `folder` keeps what trainings leave, and from where they go on, unless `restart` says to begin again. Raises
    RecipeError, CheckpointError or DataError.
    """
    device_of(recipe.device)
    rows, training = data_rows(recipe), training_rows(recipe)
    loaded = {name: load_network(spec) for name, spec in recipe.named.items()}
    twice, again = _check_rows(rows, training)
    inputs = unlabelled(rows.calibration, recipe.unlabelled_rows, recipe.batch)
    sources = {
        name: brought_along(recipe.named[name], Source(model, inputs), training) for name, (model, _) in loaded.items()
    }
    for source in sources.values():
        for part in (rows.calibration, rows.figures, training):
            if part is not None:
                check_outputs(source.model, part, class_axis=recipe.class_axis)
    for name, part in rows.outside.items():
        _check_outside(name, part, rows.figures)
    planned = jobs(recipe, sources, images=are_images(rows.figures))
    check_views(planned, rows.figures)
    check_pools(planned, rows.calibration)
    plainly = check_draws(planned, sources)
    if train and training is not None:
        place = None if folder is None else folder.trained(fresh=restart)
        sources = {n: _trained(n, recipe, source, training, progress, place) for n, source in sources.items()}
    several = len(loaded) > 1
    notes = [f"{name}: {line}" if several else line for name, (_, lines) in loaded.items() for line in lines]
    default = Recipe.model_fields["unlabelled_rows"].default
    asked = recipe.unlabelled_rows if recipe.unlabelled_rows != default else 0
    fewer = check_unlabelled(planned, asked, rows.calibration)
    return Prepared(recipe, sources, rows, planned, [*notes, *again, *fewer, *plainly], twice)


def are_images(rows: Dataset) -> bool:
    """Whether the rows are pictures with one label each, which a shift by a pixel leaves as they are."""
    return rows.inputs.ndim == 4 and rows.targets.ndim == 1 and min(rows.inputs.shape[-2:]) > 2


def pinned(prepared: Prepared) -> dict[str, Any]:
    """What the bits of the predictions depend on besides the recipe: machine, versions, tensors, rows, and code.

    A network's code is pinned by its outputs on two rows.
    """
    x = first(next(iter(prepared.rows.figures.batches(2))))[0]
    networks = {}
    for name, source in prepared.sources.items():
        tensors = params_of(source.model)
        with torch.inference_mode():
            outputs = logits(call(working_copy(source.model, dtype=torch.float32), x))
        brought = [value for each in source.collected or () for value in each.values()]
        networks[name] = digest([*tensors.values(), outputs, *brought], *tensors)
    return {
        **way(device_of(prepared.recipe.device)),
        "networks": networks,
        "rows": {name: _contents(part) for name, part in prepared.rows.parts(beyond=True).items()},
    }


def _contents(rows: Dataset) -> str:
    return digest([rows.inputs, rows.targets], repr((rows.scale, rows.mean, rows.std)))


def _trained(
    name: str, recipe: Recipe, source: Source, rows: Dataset, progress: Progress, place: Path | None
) -> Source:
    """The source with its network trained, and the members of it, where the recipe says how."""
    spec, what = recipe.named[name], f"training {name}" if name != ONLY else "training"
    if (how := spec.train) is not None:
        model = trained(source.model, how, rows, lambda done, _: progress(what, done, how.epochs))
        source = replace(source, model=model)
    if isinstance(spec.members, Members):
        runs = len(source.collected) if source.collected is not None else 1
        return trained_members(
            name, spec, source, rows, lambda done: progress(f"{what}: members", done, runs),
            device=device_of(recipe.device), folder=place,
        )  # fmt: skip
    return source


def _check_rows(rows: Rows, training: Dataset | None) -> tuple[int, list[str]]:
    """How many figure rows are among the calibration rows, and lines on those that something was fitted on."""
    for part in (rows.calibration, rows.figures):
        check_enough(part)
    twice = check_apart(rows.calibration, rows.figures)
    lines = repeated(twice, rows.calibration, rows.figures)
    if training is not None:
        lines += repeated(check_apart(training, rows.figures), training, rows.figures)
    return twice, lines


def _check_outside(name: str, rows: Dataset, inside: Dataset) -> None:
    if rows.inputs.shape[1:] != inside.inputs.shape[1:]:
        shapes = f"{list(rows.inputs.shape[1:])}, and {inside.name} of {list(inside.inputs.shape[1:])}"
        raise DataError(f"outside.{name}: inputs are of shape {shapes}; outside rows go through the same network")
