"""Whether network, data and arms fit together, found out on two rows before any work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.errors import DataError
from pluria.core.model import working_copy
from pluria.predict import first, logits
from pluria.recipe.plan import Job, draw
from pluria.recipe.pools import CASCADE, too_few
from pluria.recipe.source import Sources
from pluria.sample.moments import Moments
from pluria.sample.noise import LayerNoise, noise
from pluria.zoo.dataset import IGNORED, Dataset

FEWEST = 20
"""Labels without which neither a temperature nor a figure means anything."""

HELD = 1000
"""Rows that are compared at a time."""


def check_outputs(model: nn.Module, rows: Dataset, *, class_axis: int = 1) -> None:
    """Raise DataError unless the network takes the rows and tells as many classes apart as they name."""
    outputs = check_fits(model, rows, class_axis=class_axis)
    if outputs.shape[1] != len(rows.classes):
        raise DataError(
            f"the network tells {outputs.shape[1]} classes apart, and {rows.name} names {len(rows.classes)} "
            f"({', '.join(rows.classes[:3])}, ...). Where some have no row, give the reader their number or names as "
            "the argument `classes`"
        )


def check_fits(model: nn.Module, rows: Dataset, *, class_axis: int = 1) -> Tensor:
    """The outputs on two rows, classes on axis 1.

    DataError unless the network takes the rows, and their targets are among its classes.
    """
    x, y = next(iter(rows.batches(2)))
    try:
        with torch.inference_mode():
            outputs = logits(working_copy(model, dtype=torch.float32)(x))
            outputs = outputs.movedim(class_axis, 1) if outputs.ndim > 2 else outputs
    except Exception as error:  # the network's own code, which may raise anything
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"the network does not take inputs of shape {_shape(x)}, {x.dtype}: {line}") from None
    if outputs.ndim < 2 or (len(outputs), *outputs.shape[2:]) != y.shape:
        raise DataError(
            f"the network gives outputs of shape {_shape(outputs)} for targets of shape {_shape(y)}; wanted one number "
            f"for each class on axis {class_axis} (`class_axis`), and the other axes as in the targets"
        )
    if int(rows.targets.max()) >= outputs.shape[1]:
        wrong = f"targets of {rows.name} go up to {int(rows.targets.max())}"
        raise DataError(f"{wrong}, and the network numbers {outputs.shape[1]} classes from 0")
    return outputs


def check_enough(rows: Dataset) -> None:
    """Raise DataError where there are fewer labels than calibration or figures can do with."""
    labels = int((rows.targets != IGNORED).sum())
    if labels < FEWEST:
        raise DataError(f"{rows.name}: {FEWEST} labels are the least that figures can come from, and it has {labels}")


def check_apart(fitted: Dataset, figures: Dataset) -> int:
    """How many of the figure rows are among those that something was fitted on; rows are told apart by their inputs.

    A few rows stand twice in many a data set. DataError where they are more than half of either.
    """
    seen = set(_marks(fitted))
    twice = sum(mark in seen for mark in _marks(figures))
    if twice > min(len(fitted), len(figures)) / 2:
        raise DataError(
            f"{_told(twice, fitted, figures)}: figures come from rows that nothing was fitted on. Give other rows; a "
            "recipe without `calibration` halves its `data`"
        )
    return twice


def repeated(twice: int, fitted: Dataset, figures: Dataset) -> list[str]:
    """A line on figure rows that something was fitted on, where there are any."""
    return [f"{_told(twice, fitted, figures)}: what they add to the figures is too good"] if twice else []


def check_unlabelled(jobs: Iterable[Job], asked: int, rows: Dataset) -> list[str]:
    """A line where arms read fewer unlabelled rows than a recipe asks for."""
    if asked <= len(rows) or not any(_reads_inputs(job) for job in jobs):
        return []
    return [f"unlabelled_rows: {asked} are asked for; {rows.name} has {len(rows)}, and all of them are taken"]


def check_views(jobs: Iterable[Job], rows: Dataset) -> None:
    """Raise DataError where views would move something else than pixels."""
    seen = {name for job in jobs for name in job.arm.views if name != "identity"}
    if seen and rows.inputs.ndim != 4:
        names = ", ".join(sorted(seen))
        raise DataError(f"{rows.name}: views ({names}) are of images [N, C, H, W]; inputs are {_shape(rows.inputs)}")


def check_pools(jobs: Iterable[Job], rows: Dataset) -> None:
    """Raise DataError where an arm's pool is fitted by labels and there are too few of them."""
    for job in jobs:
        if job.arm.pool == CASCADE and rows.targets.ndim > 1:
            raise DataError(
                f"{job.name}: a cascade asks for whole examples; {rows.name} has targets {_shape(rows.targets)}"
            )
        wanted = too_few(job.arm.pool, job.size, rows.targets)
        if wanted is not None:
            raise DataError(
                f"{job.name}: this pool is fitted on four fifths of the calibration rows, and {job.size} members need "
                f"{wanted} labels there; {rows.name} has {len(rows)} rows in all. Give more, or take another pool"
            )


def check_draws(jobs: Iterable[Job], sources: Sources) -> list[str]:
    """Lines that name what error feedback leaves to plain rounding, and layers that see too few inputs for it.

    RecipeError where an arm cannot be drawn: no such number system, groups that do not divide, too few inputs. Arms
    that were asked for come first, so that none of their controls is blamed for what is wrong with them.
    """
    lines = []
    for job in sorted({job.name: job for job in jobs}.values(), key=lambda job: job.control):
        for network in job.arm.networks:
            source = sources[network]
            _, ensemble = draw(job.plain(), network, source, [0])
            if _with_feedback(job):
                lines += [f"{network}: {line}" for line in _fed(noise(ensemble), source.moments)]
    return list(dict.fromkeys(lines))


def _fed(rows: list[LayerNoise], moments: Moments) -> list[str]:
    """What feedback does not reach, and where it has little to go by."""
    lines, rounded = [], {row.name for row in rows}
    if names := [row.name for row in rows if not row.compensated]:
        lines.append(f"rounded without feedback, for their inputs are not seen: {', '.join(names)}")
    scant = {name: both for name, both in moments.scant().items() if name in rounded}
    if few := [f"{name} ({seen} for {inputs} inputs)" for name, (seen, inputs) in scant.items()]:
        lines.append(
            "too few unlabelled rows to tell how the inputs of these layers go together, so feedback leans on its "
            f"damping: {', '.join(few)}"
        )
    return lines


def _with_feedback(job: Job) -> bool:
    return job.arm.method in ("compensated", "gptq")


def _reads_inputs(job: Job) -> bool:
    return _with_feedback(job) or bool(job.arm.refresh)


def _told(twice: int, fitted: Dataset, figures: Dataset) -> str:
    return f"{twice} of the {len(figures)} rows of {figures.name} are also in {fitted.name}"


def _marks(rows: Dataset) -> Iterator[bytes]:
    """What tells each row's inputs apart from others; nothing where inputs are no tensors."""
    for batch in rows.batches(HELD):
        inputs, y = first(batch)
        count = 0 if y is None else len(y)
        held = [part for part in _parts(inputs) if len(part) == count]
        flat = [part.detach().cpu().contiguous().reshape(count, -1).view(torch.uint8).numpy() for part in held]
        for row in range(count if flat else 0):
            yield hashlib.blake2b(b"".join(part[row].tobytes() for part in flat), digest_size=16).digest()


def _parts(inputs: Any) -> Iterator[Tensor]:
    """The tensors of a batch that have an axis of examples."""
    if isinstance(inputs, Tensor):
        yield from [inputs] if inputs.ndim else []
    elif isinstance(inputs, Mapping):
        for value in inputs.values():
            yield from _parts(value)
    elif isinstance(inputs, tuple | list):
        for value in inputs:
            yield from _parts(value)


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
