"""Run a recipe: predict once, keep every member's outputs, compute every figure from what is kept.

    networks, data -> jobs -> for each member: outputs on each part of the rows -> figures.json, ensemble.pluria

A run that is interrupted goes on where it stopped and gives the same bits: a member is a function of its number, and
the folder pins what else the bits depend on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pluria.core.errors import DataError
from pluria.predict import predict
from pluria.recipe.catalogue import methods
from pluria.recipe.figures import figures
from pluria.recipe.folder import RunFolder
from pluria.recipe.plan import Job, draw
from pluria.recipe.prepare import Prepared, Progress, pinned, prepare, quiet
from pluria.recipe.resolve import device_of
from pluria.recipe.schema import ONLY, Recipe
from pluria.recipe.source import Source
from pluria.store.file import save
from pluria.zoo.dataset import Dataset
from pluria.zoo.views import view


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
        folder.refuse_other(recipe, {})
    prepared = prepare(recipe, progress)
    folder.claim(recipe, pinned(prepared), restart=restart)
    predict_all(prepared, folder, progress)
    progress("figures", 1, 1)
    found = figures(prepared, folder, command)
    _store(prepared, out, {arm["name"]: arm["pool"] for arm in found["arms"]})
    folder.write("figures.json", found)
    return found


def predict_all(prepared: Prepared, folder: RunFolder, progress: Progress = quiet) -> None:
    """Keep the outputs of every member that is not kept yet."""
    total, done = sum(job.size for job in prepared.jobs), 0
    for job in prepared.jobs:
        parts = list(prepared.rows.parts(job.arm.beyond))
        for network in job.arm.networks:
            missing: dict[tuple[str, ...], list[int]] = {}
            for position in range(job.arm.members):
                lacking = tuple(part for part in parts if not folder.kept(job.place(network), part, position))
                missing.setdefault(lacking, []).append(position)
            done += len(missing.pop((), []))
            for lacking, positions in missing.items():
                for position in _predict(prepared, folder, job, network, positions, lacking):
                    done += 1
                    progress(f"{job.name}, member {position}", done, total)


def _predict(
    prepared: Prepared, folder: RunFolder, job: Job, network: str, positions: list[int], parts: tuple[str, ...]
) -> Iterator[int]:
    """Keep the outputs of one network's members at these positions on these parts, and tell which are done."""
    rows = prepared.rows.parts(job.arm.beyond)
    source, some = prepared.sources[network], {part: rows[part] for part in parts}
    return keep_outputs(prepared.recipe, source, some, folder, job, network, positions)


def keep_outputs(
    recipe: Recipe,
    source: Source,
    rows: Mapping[str, Dataset],
    folder: RunFolder,
    job: Job,
    network: str,
    positions: list[int],
) -> Iterator[int]:
    """Keep the outputs of one network's members at these positions on rows by the name of their part.

    Gives each position as soon as it is done. Raises DataError for outputs that are not finite.
    """
    model, ensemble = draw(job, network, source, positions)
    batches = Chain([part.batches(recipe.batch) for part in rows.values()])
    options: dict[str, Any] = {
        "class_axis": recipe.class_axis,
        "device": device_of(recipe.device),
        "dtype": getattr(torch, recipe.dtype),
        "channels_last": recipe.channels_last,
    }
    blocks = predict(model, ensemble, batches, views=[view(name) for name in job.arm.views], **options)
    for at in positions:
        for part, some in rows.items():
            start, held, count = time.perf_counter(), [], 0
            while count < len(some):
                held.append(next(blocks).outputs[0])
                count += len(held[-1])
            outputs = torch.cat(held)
            _check(outputs, job.name, part)
            folder.keep(job.place(network), part, at, outputs, time.perf_counter() - start)
        yield at


class Chain:
    """Several collections of batches, one after the other, as often as asked for."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[Any]:
        for part in self.parts:
            yield from part


def _check(outputs: Tensor, name: str, part: str) -> None:
    if not bool(torch.isfinite(outputs).all()):
        raise DataError(f"{name}: the outputs on {part} hold NaN or Inf. Try more bits, or look at the inputs")


def _store(prepared: Prepared, out: Path, pools: Mapping[str, str]) -> None:
    """The drawn ensembles of the first seed as one file; MC dropout has a network of its own and is left out.

    `pools` says what each arm was pooled by. The file has one pool for all only where they agree and nothing is fitted.
    """
    recipe, data = prepared.recipe, prepared.rows.figures
    arms = [job for job in prepared.jobs if job.seed == recipe.seeds[0] and not job.control]
    drawn, networks, views = {}, {}, {}
    together: dict[str, list[str]] = {}
    for job in (job for job in arms if job.arm.method != "dropout"):
        for network in job.arm.networks:
            name = job.name if network == ONLY else f"{job.name}: {network}"
            together.setdefault(job.name, []).append(name)
            drawn[name] = draw(job, network, prepared.sources[network], list(range(job.arm.members)))[1]
            networks[name] = recipe.named[network].model_dump(mode="json", include={"model", "arguments"})
            views[name] = list(job.arm.views)
    if not drawn:
        return
    alike = len(recipe.named) == 1
    pooled = {name: pools[name] for name in together}
    one = next(iter(pooled.values())) if len(set(pooled.values())) == 1 else None
    about = {
        "network": next(iter(networks.values())) if alike else None,
        "networks": None if alike else networks,
        "together": None if alike else together,
        "pool": one if one in {method.name for method in methods("pool")} else None,
        "pools": pooled,
        "classes": list(data.classes),
        "inputs": {"mean": list(data.mean), "std": list(data.std)},
        "views": views,
    }
    save(out / "ensemble.pluria", drawn, about={key: value for key, value in about.items() if value is not None})
