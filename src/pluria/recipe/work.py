"""The forwards of a run as a task over pieces, so that any engine can do them: a piece is one member of one network.

    missing(prepared, folder) -> pieces        Work(prepared)(piece) -> outputs on each part that the piece lacks

A worker needs nothing but the task: it holds the networks and the rows. Only the process that was asked writes files.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.core.errors import DataError, EngineError
from pluria.predict import Choice, Runner, runner
from pluria.predict.backends import Name
from pluria.recipe.folder import RunFolder, way
from pluria.recipe.plan import Job, draw
from pluria.recipe.prepare import Prepared
from pluria.recipe.resolve import device_of
from pluria.recipe.schema import Recipe
from pluria.zoo.dataset import Dataset
from pluria.zoo.views import view

Made = dict[str, tuple[Tensor, float]]
"""Outputs `[N, ..., C]` of one member by the part of the rows, and the seconds that they took."""


@dataclass(frozen=True)
class Piece:
    """One member of a job's network, the parts of the rows that it lacks, and the members that are drawn with it."""

    job: int
    network: str
    position: int
    parts: tuple[str, ...]
    together: tuple[int, ...]


def missing(prepared: Prepared, folder: RunFolder) -> list[Piece]:
    """What is not kept yet; members that arms have in common once."""
    pieces: list[Piece] = []
    planned: set[tuple[str, str, int]] = set()
    for number, job in enumerate(prepared.jobs):
        parts = list(prepared.rows.parts(job.arm.beyond))
        for network in job.arm.networks:
            place, lacking = job.place(network), dict[tuple[str, ...], list[int]]()
            for at in range(job.arm.members):
                fresh = [p for p in parts if (place, p, at) not in planned and not folder.kept(place, p, at)]
                planned.update((place, part, at) for part in fresh)
                lacking.setdefault(tuple(fresh), []).append(at)
            lacking.pop((), None)
            for some, positions in lacking.items():
                pieces += [Piece(number, network, at, some, tuple(positions)) for at in positions]
    return pieces


class Work:
    """The task of a run. What was drawn last is held with its working copy: pieces drawn together come in a row."""

    def __init__(self, prepared: Prepared, backends: Mapping[str, Name | Choice] | None = None) -> None:
        self.prepared, self.way = prepared, way(device_of(prepared.recipe.device))
        self.backends = dict(backends or {})
        self._last: tuple[Any, tuple[Runner, tuple[int, ...]]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_last": None}

    def __call__(self, piece: Piece) -> Made:
        """Outputs on each part that the piece lacks; EngineError where they would have other bits than the caller's."""
        recipe, job = self.prepared.recipe, self.prepared.jobs[piece.job]
        self._check(way(device_of(recipe.device)))
        run, members = self._drawn(piece, job)
        rows = self.prepared.rows.parts(job.arm.beyond)
        some = {part: rows[part] for part in piece.parts}
        (made,) = _outputs(run, [members[piece.together.index(piece.position)]], some, recipe.batch, job.name)
        return made

    def _drawn(self, piece: Piece, job: Job) -> tuple[Runner, tuple[int, ...]]:
        """What runs the members that are drawn with the piece, and their numbers."""
        same = piece.job, piece.network, piece.together
        if self._last is None or self._last[0] != same:
            self._last = None  # before the next is drawn, so that two are never held
            drawn = draw(job, piece.network, self.prepared.sources[piece.network], list(piece.together))
            backend = self.backends.get(job.place(piece.network), "loop")
            self._last = same, (_runner(self.prepared.recipe, *drawn, job, backend), drawn[1].members)
        return self._last[1]

    def _check(self, here: dict[str, Any]) -> None:
        if other := [f"{name} {here[name]}, wanted {value}" for name, value in self.way.items() if here[name] != value]:
            raise EngineError(
                f"a worker is not of the kind that this run is pinned to ({'; '.join(other)}), so its bits would "
                "differ. Take machines of one kind, with the same packages"
            )


def outputs_of_members(
    recipe: Recipe,
    model: nn.Module,
    ensemble: Ensemble,
    rows: Mapping[str, Dataset],
    job: Job,
    backend: Name | Choice = "loop",
) -> Iterator[Made]:
    """What every member gives on rows by the name of their part. Raises DataError for outputs that are not finite."""
    return _outputs(_runner(recipe, model, ensemble, job, backend), ensemble.members, rows, recipe.batch, job.name)


def _runner(recipe: Recipe, model: nn.Module, ensemble: Ensemble, job: Job, backend: Name | Choice) -> Runner:
    return runner(
        model,
        ensemble,
        views=[view(name) for name in job.arm.views],
        class_axis=recipe.class_axis,
        device=device_of(recipe.device),
        dtype=getattr(torch, recipe.dtype),
        channels_last=recipe.channels_last,
        backend=backend,
    )


def _outputs(run: Runner, members: Sequence[int], rows: Mapping[str, Dataset], batch: int, name: str) -> Iterator[Made]:
    for member in members:
        made: Made = {}
        # Part by part: batches that are run together must not depend on which parts are lacking.
        for part, some in rows.items():
            start = time.perf_counter()
            outputs = torch.cat([block.outputs[0] for block in run(some.batches(batch), [member])])
            _check(outputs, name, part)
            made[part] = outputs, time.perf_counter() - start
        yield made


def _check(outputs: Tensor, name: str, part: str) -> None:
    if not bool(torch.isfinite(outputs).all()):
        raise DataError(f"{name}: the outputs on {part} hold NaN or Inf. Try more bits, or look at the inputs")
