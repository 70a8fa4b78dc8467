"""Whether network, data and arms fit together, found out on two rows before any work."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from pluria.core.errors import DataError
from pluria.core.model import working_copy
from pluria.predict import logits
from pluria.recipe.plan import Job, draw
from pluria.recipe.pools import too_few
from pluria.recipe.source import Sources
from pluria.sample.noise import noise
from pluria.zoo.dataset import Dataset


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


def check_apart(fitted: Dataset, figures: Dataset) -> None:
    """Raise DataError where most of the figure rows are among those that something was fitted on.

    A few rows that stand twice in a data set are let pass.
    """
    if fitted.inputs.shape[1:] != figures.inputs.shape[1:]:
        return
    seen = set(map(_bytes, fitted.inputs))
    twice = sum(_bytes(row) in seen for row in figures.inputs)
    if twice > len(figures) / 2:
        raise DataError(
            f"{twice} of the {len(figures)} rows of {figures.name} are also in {fitted.name}: figures come from rows "
            "that nothing was fitted on. Give other rows, or leave `calibration` out"
        )


def check_views(jobs: Iterable[Job], rows: Dataset) -> None:
    """Raise DataError where views would move something else than pixels."""
    seen = {name for job in jobs for name in job.arm.views if name != "identity"}
    if seen and rows.inputs.ndim != 4:
        names = ", ".join(sorted(seen))
        raise DataError(f"{rows.name}: views ({names}) are of images [N, C, H, W]; inputs are {_shape(rows.inputs)}")


def check_pools(jobs: Iterable[Job], rows: Dataset) -> None:
    """Raise DataError where an arm's pool is fitted by labels and there are too few of them."""
    for job in jobs:
        wanted = too_few(job.arm.pool, job.size, rows.targets)
        if wanted is not None:
            raise DataError(
                f"{job.name}: this pool is fitted on four fifths of the calibration rows, and {job.size} members need "
                f"{wanted} labels there; {rows.name} has {len(rows)} rows in all. Give more, or take another pool"
            )


def check_draws(jobs: Iterable[Job], sources: Sources) -> list[str]:
    """Lines that name what error feedback leaves to plain rounding.

    RecipeError where an arm cannot be drawn: no such number system, groups that do not divide, too few inputs.
    """
    lines = []
    for job in {job.name: job for job in jobs}.values():
        for network in job.arm.networks:
            _, ensemble = draw(job.plain(), network, sources[network], [0])
            rows = noise(ensemble) if job.arm.method in ("compensated", "gptq") else []
            names = [row.name for row in rows if not row.compensated]
            if names:
                lines.append(f"{network}: rounded without feedback, for their inputs are not seen: {', '.join(names)}")
    return list(dict.fromkeys(lines))


def _bytes(row: Tensor) -> bytes:
    return row.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
