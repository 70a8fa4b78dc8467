"""Run a recipe: predict once, keep every member's outputs, compute every figure from what is kept.

    network, data -> jobs -> for each member: outputs on (calibration, figures) -> figures.json, ensemble.pluria

A run that is interrupted goes on where it stopped and gives the same bits: a member is a function of its number, and
the folder pins what else the bits depend on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.errors import DataError
from pluria.core.model import working_copy
from pluria.core.params import params_of
from pluria.predict import first, logits, predict
from pluria.predict.batches import call
from pluria.recipe.check import check_apart, check_draws, check_outputs, check_views
from pluria.recipe.figures import figures
from pluria.recipe.folder import RunFolder, digest
from pluria.recipe.plan import Job, draw, jobs
from pluria.recipe.resolve import Rows, data_rows, device_of, load_network, trained, training_rows
from pluria.recipe.schema import Recipe
from pluria.store.file import save
from pluria.zoo.dataset import Dataset
from pluria.zoo.views import view

PARTS = ("calibration", "figures")


Progress = Callable[[str, float, float], None]
"""Told what is being done, how much of it is done, and how much there is: epochs, or forwards of members."""


def quiet(what: str, done: float, total: float) -> None:
    """Progress that shows nothing."""


@dataclass(frozen=True)
class Prepared:
    """A recipe whose network and rows are read and whose jobs are known; nothing has been predicted yet."""

    recipe: Recipe
    model: nn.Module
    rows: Rows
    jobs: list[Job]
    notes: list[str]


def prepare(recipe: Recipe, progress: Progress = quiet, *, train: bool = True) -> Prepared:
    """Read and check everything a run needs, and train where the recipe says so (and `train` too).

    Raises RecipeError, CheckpointError or DataError.
    """
    device_of(recipe.device)
    rows, training = data_rows(recipe), training_rows(recipe)
    model, notes = load_network(recipe.network)
    check_apart(rows.calibration, rows.figures)
    if training is not None:
        check_apart(training, rows.figures)
    for part in (rows.calibration, rows.figures, training):
        if part is not None:
            check_outputs(model, part, class_axis=recipe.class_axis)
    planned = jobs(recipe, model)
    check_views(planned, rows.figures)
    check_draws(planned, model)
    if recipe.network.train is not None and training is not None and train:
        how = recipe.network.train
        model = trained(model, how, training, lambda done, loss: progress("training", done, how.epochs))
    return Prepared(recipe, model, rows, planned, notes)


def run(
    recipe: Recipe, out: Path, *, restart: bool = False, progress: Progress = quiet, command: str = ""
) -> dict[str, Any]:
    """Run a recipe into the folder `out` and return its figures, which are also in `out/figures.json`.

    Raises RecipeError, CheckpointError or DataError before any heavy work. What an interrupted run has kept is used.
    """
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    folder = RunFolder(out)
    if not restart:
        folder.refuse_other({"recipe": recipe.model_dump(mode="json")})
    prepared = prepare(recipe, progress)
    folder.claim(recipe, _pinned(prepared), restart=restart)
    predict_all(prepared, folder, progress)
    _store(prepared, out)
    progress("figures", 1, 1)
    found = figures(recipe, prepared.model, prepared.rows, prepared.jobs, folder, command, prepared.notes)
    folder.write("figures.json", found)
    return found


def predict_all(prepared: Prepared, folder: RunFolder, progress: Progress = quiet) -> None:
    """Keep the outputs of every member that is not kept yet."""
    total, done = sum(job.arm.members for job in prepared.jobs), 0
    for job in prepared.jobs:
        missing = [i for i in range(job.arm.members) if not folder.kept(job.slug, i)]
        done += job.arm.members - len(missing)
        for position, parts, seconds in _outputs(prepared, job, missing):
            folder.keep(job.slug, position, parts, seconds)
            done += 1
            progress(job.name, done, total)


def _outputs(prepared: Prepared, job: Job, positions: list[int]) -> Iterator[tuple[int, dict[str, Tensor], float]]:
    """Outputs of the members at these positions on both parts, one by one."""
    if not positions:
        return
    recipe, rows = prepared.recipe, (prepared.rows.calibration, prepared.rows.figures)
    device = device_of(recipe.device)
    model, ensemble = draw(job, prepared.model, unlabelled(prepared), positions)
    batches = Chain([part.batches(recipe.batch) for part in rows])
    options: dict[str, Any] = {
        "class_axis": recipe.class_axis,
        "device": device,
        "dtype": getattr(torch, recipe.dtype),
        "channels_last": recipe.channels_last,
    }
    blocks = predict(model, ensemble, batches, views=[view(name) for name in job.arm.views], **options)
    held: list[Tensor] = []
    start = time.perf_counter()
    for block in blocks:
        held.append(block.outputs[0])
        if block.ids.stop == sum(map(len, rows)):
            outputs = torch.cat(held)
            _check(outputs, job.name)
            parts = dict(zip(PARTS, torch.split(outputs, [len(part) for part in rows]), strict=True))
            position = positions[ensemble.members.index(block.members[0])]
            yield position, parts, time.perf_counter() - start
            held, start = [], time.perf_counter()


class Chain:
    """Several collections of batches, one after the other, as often as asked for."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[Any]:
        for part in self.parts:
            yield from part


def unlabelled(prepared: Prepared) -> list[Any]:
    """Inputs of the calibration rows, for batch-norm refresh; their labels are not used.

    A batch of one row has no variance, so one that is left over is left out.
    """
    some = prepared.rows.calibration.take(slice(0, prepared.recipe.refresh_rows))
    batches = [first(batch) for batch in some.batches(max(2, prepared.recipe.batch))]
    left_over = len(batches) > 1 and batches[-1][1] is not None and len(batches[-1][1]) == 1
    return [inputs for inputs, _ in (batches[:-1] if left_over else batches)]


def _check(outputs: Tensor, name: str) -> None:
    if not bool(torch.isfinite(outputs).all()):
        raise DataError(f"{name}: the outputs hold NaN or Inf. Try more bits, or look at the inputs")


def _pinned(prepared: Prepared) -> dict[str, Any]:
    """What the bits of the predictions depend on besides the recipe: machine, versions, tensors, rows, and code.

    The network's code is pinned by its outputs on two rows.
    """
    parts, tensors = (prepared.rows.calibration, prepared.rows.figures), params_of(prepared.model)
    x = first(next(iter(parts[1].batches(2))))[0]
    with torch.inference_mode():
        outputs = logits(call(working_copy(prepared.model, dtype=torch.float32), x))
    return {
        "device": str(device_of(prepared.recipe.device)),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "network": digest(list(tensors.values()), *tensors),
        "code": digest([outputs]),
        "rows": digest([t for part in parts for t in (part.inputs, part.targets)], *map(_scaling, parts)),
    }


def _scaling(rows: Dataset) -> str:
    return repr((rows.scale, rows.mean, rows.std))


def _store(prepared: Prepared, out: Path) -> None:
    """The drawn ensembles of the first seed as one file; MC dropout has a network of its own and is left out."""
    recipe, data = prepared.recipe, prepared.rows.figures
    arms = [job for job in prepared.jobs if job.seed == recipe.seeds[0] and not job.control]
    kept = [job for job in arms if job.arm.method != "dropout"]
    if not kept:
        return
    drawn = {job.name: draw(job, prepared.model, unlabelled(prepared), list(range(job.arm.members)))[1] for job in kept}
    about = {
        "network": recipe.network.model_dump(mode="json", include={"model", "arguments"}),
        "pool": "mean_probability",
        "classes": list(data.classes),
        "inputs": {"mean": list(data.mean), "std": list(data.std)},
        "views": {job.name: list(job.arm.views) for job in kept},
    }
    save(out / "ensemble.pluria", drawn, about=about)
