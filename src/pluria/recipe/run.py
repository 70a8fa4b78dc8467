"""Run a recipe: predict once, keep every member's outputs, compute every figure from what is kept.

    networks, data -> jobs -> for each member: outputs on each part of the rows -> figures.json, ensemble.pluria

A run that is interrupted goes on where it stopped and gives the same bits: a member is a function of its number, and
the folder pins what else the bits depend on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pluria.predict import Choice, Mapper, local
from pluria.predict.backends import Name
from pluria.predict.engine import told
from pluria.recipe.backends import settled
from pluria.recipe.catalogue import methods
from pluria.recipe.figures import figures
from pluria.recipe.folder import RunFolder
from pluria.recipe.plan import Job, draw
from pluria.recipe.prepare import Prepared, Progress, pinned, prepare, quiet
from pluria.recipe.schema import ONLY, Recipe
from pluria.recipe.source import Source
from pluria.recipe.work import Made, Piece, Work, missing, outputs_of_members
from pluria.store.file import save
from pluria.zoo.dataset import Dataset


def run(
    recipe: Recipe,
    out: Path,
    *,
    restart: bool = False,
    mapper: Mapper = local,
    progress: Progress = quiet,
    command: str = "",
) -> dict[str, Any]:
    """Run a recipe into the folder `out` and return its figures, which are also in `out/figures.json`.

    mapper   where members are predicted: in this process, in several (`Processes`), or on a cluster (`Ray`)

    Raises RecipeError, CheckpointError or DataError before any heavy work, and EngineError where workers fail. What an
    interrupted run has kept is used, whatever engine made it.
    """
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    folder = RunFolder(out)
    if not restart:
        folder.refuse_other(recipe, {})
    prepared = prepare(recipe, progress, folder=folder, restart=restart)
    folder.claim(recipe, pinned(prepared), restart=restart, engine=told(mapper))
    predict_all(prepared, folder, progress, mapper=mapper)
    progress("figures", 1, 1)
    found = figures(prepared, folder, command)
    found["environment"]["engine"] = told(mapper)
    _store(prepared, out, {arm["name"]: arm["pool"] for arm in found["arms"]})
    folder.write("figures.json", found)
    return found


def predict_all(prepared: Prepared, folder: RunFolder, progress: Progress = quiet, *, mapper: Mapper = local) -> None:
    """Keep the outputs of every member that is not kept yet; `mapper` says where they are computed."""
    pieces, total = missing(prepared, folder), sum(job.size for job in prepared.jobs)
    with closing(mapper(Work(prepared, _backends(prepared, folder, pieces)), pieces)) as results:
        for done, (piece, made) in enumerate(zip(pieces, results, strict=True), start=total - len(pieces) + 1):
            job = prepared.jobs[piece.job]
            _keep(folder, job, piece.network, piece.position, made)
            progress(f"{job.name}, member {piece.position}", done, total)


def _backends(prepared: Prepared, folder: RunFolder, pieces: list[Piece]) -> dict[str, Name | Choice]:
    """The back end of each place that lacks something, settled here: workers must not choose, each for itself."""
    found: dict[str, Name | Choice] = {}
    for piece in pieces:
        job, network = prepared.jobs[piece.job], piece.network
        if (place := job.place(network)) not in found:
            rows = {part: prepared.rows.parts(job.arm.beyond)[part] for part in piece.parts}
            drawn = partial(draw, job, network, prepared.sources[network], list(piece.together))
            found[place] = settled(prepared.recipe, folder, place, job, rows, drawn)
    return found


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
    drawn = draw(job, network, source, positions)
    backend = settled(recipe, folder, job.place(network), job, rows, lambda: drawn)
    for at, made in zip(positions, outputs_of_members(recipe, *drawn, rows, job, backend), strict=True):
        _keep(folder, job, network, at, made)
        yield at


def _keep(folder: RunFolder, job: Job, network: str, position: int, made: Made) -> None:
    for part, (outputs, seconds) in made.items():
        folder.keep(job.place(network), part, position, outputs, seconds)


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
