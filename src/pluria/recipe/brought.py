"""The members that a network brings along: those of a `.pluria` file, or what a training leaves in the run folder.

    network.members: FILE                                                      a file of yours
    network.members: {method: Snapshots, epochs: 20, rate: 0.1, cycles: 4}     trained/NAME-DIGEST.pluria

A training starts from the network as it stands, with its checkpoint or trained. A network that has neither is what the
training ends with. A training that was killed goes on; one that is finished is not repeated.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pluria.core.ensemble import Ensemble, single
from pluria.core.errors import CheckpointError, RecipeError
from pluria.core.params import check_fit, params_of
from pluria.recipe.folder import digest
from pluria.recipe.parts import Members, Network
from pluria.recipe.schema import method_of_training
from pluria.recipe.source import Source
from pluria.recipe.trainers import Loop, averaged, joined, per_run, points, sampled
from pluria.store.file import load, load_all, save
from pluria.zoo.dataset import Dataset

MEMBERS, NETWORK = "members", "network"
"""Names of the two ensembles of the file that a training leaves: its members, and the network it ends with."""


def brought_along(spec: Network, source: Source, rows: Dataset | None) -> Source:
    """The source with the members that a file has; of a training that is still to come, with as many stand-ins.

    Raises RecipeError where a training would leave no member.
    """
    if spec.members is None:
        return source
    if isinstance(spec.members, Members):
        assert rows is not None
        count = expected(spec.members, rows)
        return replace(source, collected=Ensemble(single(params_of(source.model)).families, tuple(range(count))))
    found = load(spec.members)
    check_fit(found.outline(), source.model.state_dict(), what=spec.members)
    model = source.model
    if spec.checkpoint is None and spec.train is None:
        model.load_state_dict(found.params(found.members[-1]))
    return replace(source, model=model, collected=replace(found, members=found.members))


def expected(how: Members, rows: Dataset) -> int:
    """How many members a training will leave."""
    loop, row = Loop(how, rows), method_of_training(how)
    if how.cycles > loop.steps:
        raise RecipeError(f"members: a run of {loop.steps} steps has at most as many cycles; got {how.cycles}")
    if row.make is averaged:
        return 1
    if row.make in (points, sampled):
        looks = loop.ends if row.make is points else loop.samples
        if count := sum(map(looks, range(1, loop.steps + 1))):
            return count
        raise RecipeError(f"members: {how.method} would leave none in {loop.steps} steps; look at cycles, begin, every")
    count = int(how.options.get("members", row.options()["members"].default))
    if count < 1:
        raise RecipeError(f"members: {how.method} leaves 1 member or more; got {count}")
    if row.make is joined:
        try:
            per_run(count, int(how.options.get("runs", row.options()["runs"].default)))
        except ValueError as error:
            raise RecipeError(f"members: {error}") from None
    return count


def trained_members(
    name: str,
    spec: Network,
    source: Source,
    rows: Dataset,
    progress: Callable[[float], None],
    *,
    device: torch.device,
    folder: Path | None,
) -> Source:
    """The source with the members of its training, from the folder where they are there already.

    Raises RecipeError where the training fails.
    """
    how = spec.members
    assert isinstance(how, Members)
    begun = spec.checkpoint is not None or spec.train is not None
    file = None if folder is None else folder / f"{name}-{_digest(spec, source.model, rows, begun)}.pluria"
    if file is None or not file.exists():
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        loop = Loop(how, rows, device, None if file is None else file.with_suffix(""), progress)
        model, ensemble, runs = _trained(loop, source.model)
        passes = runs * how.epochs * loop.batches
        if file is None:
            return _with(source, ensemble, model, passes, begun)
        save(file, {MEMBERS: ensemble, NETWORK: single(params_of(model))}, about={"backward_passes": passes})
        for checkpoint in file.parent.glob(f"{file.stem}-*.pt"):
            checkpoint.unlink()
    held, model = load_all(file), copy.deepcopy(source.model)
    model.load_state_dict(held.ensembles[NETWORK].params(0))
    return _with(source, held.ensembles[MEMBERS], model, int(held.about["backward_passes"]), begun)


def _trained(loop: Loop, start: nn.Module) -> tuple[nn.Module, Ensemble, int]:
    row, model = method_of_training(loop.how), copy.deepcopy(start)
    try:
        ensemble, runs = row.make(loop, row.load(), model, **loop.how.options)
    except (ValueError, TypeError, CheckpointError) as error:
        raise RecipeError(f"members by {loop.how.method}: {error}") from None
    return model.eval(), ensemble, runs


def _with(source: Source, ensemble: Ensemble, model: nn.Module, passes: int, begun: bool) -> Source:
    return replace(source, model=source.model if begun else model, collected=ensemble, passes=passes)


def _digest(spec: Network, model: nn.Module, rows: Dataset, begun: bool) -> str:
    """All that the members depend on: how they are trained, from where, and on what."""
    words: dict[str, Any] = spec.model_dump(mode="json", include={"model", "arguments", "members"})
    tensors = list(params_of(model).values()) if begun else []
    return digest([*tensors, rows.inputs, rows.targets], json.dumps(words, sort_keys=True))
