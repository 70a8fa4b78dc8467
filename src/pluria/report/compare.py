"""compare: what low-precision members do for a network of your own, beside every control that applies.

model, calibration batches, figure batches -> table and report
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.ensemble import single
from pluria.core.errors import DataError
from pluria.core.params import params_of
from pluria.predict import first, predict
from pluria.recipe.check import check_apart, check_draws, check_enough, repeated
from pluria.recipe.figures import figures
from pluria.recipe.folder import RunFolder
from pluria.recipe.plan import jobs
from pluria.recipe.prepare import Prepared, Progress, quiet
from pluria.recipe.reading import make_recipe
from pluria.recipe.resolve import Rows
from pluria.recipe.run import predict_all
from pluria.recipe.schema import ONLY
from pluria.recipe.source import Source, unlabelled
from pluria.report.html import write_report
from pluria.report.tables import plain

DEFAULT = ({"method": "low_precision", "format": "int5", "members": 8},)


@dataclass(frozen=True)
class Comparison:
    """Every figure of a comparison as plain data; printed, it is a table."""

    figures: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.figures['headline']}\n\n{plain(self.figures)}"

    def report(self, path: str | Path) -> None:
        """Write the comparison as one HTML file."""
        write_report(self.figures, Path(path))


@dataclass(frozen=True, eq=False)
class Given:
    """Batches of the user's as rows of a run: they are gone through as they are, whatever size is asked for."""

    name: str
    given: Iterable[Any]
    targets: Tensor
    classes: tuple[str, ...]
    inputs: Tensor

    def __len__(self) -> int:
        return len(self.targets)

    def batches(self, size: int) -> Iterable[Any]:
        """The batches as given."""
        return self.given

    def take(self, rows: slice) -> Given:
        """As many whole batches from the start as `rows` needs."""
        some, seen = [], 0
        for batch in self.given:
            if seen >= rows.stop:
                break
            some.append(batch)
            seen += len(first(batch)[1])  # type: ignore[arg-type]
        return Given(self.name, some, self.targets[:seen], self.classes, self.inputs[:seen])


def compare(
    model: nn.Module,
    calibration: Iterable[Any],
    figure: Iterable[Any],
    *,
    arms: Sequence[Mapping[str, Any]] = DEFAULT,
    views: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    classes: Sequence[str] | None = None,
    class_axis: int = 1,
    progress: Progress = quiet,
) -> Comparison:
    """Measure arms and controls on labelled batches; temperature and choices see the calibration batches only.

    calibration, figure   re-iterable, unshuffled batches (inputs, targets); targets int64 `[n]` or `[n, ...]`
    arms                  methods with options, as in a recipe: {"method": "low_precision", "format": "int4", ...}
    views                 names of label-preserving views of images, such as "flip": a control; left out, shifts by
                          one pixel, which keep any label. An empty list leaves the control out
    class_axis            where the classes lie in the network's outputs

    Raises DataError for batches without targets, with targets that are no class, with fewer than twenty labels, or of
    which half stand on both sides, and for fewer class names than classes; RecipeError for an arm that does not exist
    or cannot be drawn.
    """
    name = type(model).__name__
    plan: dict[str, Any] = {
        "title": f"{name}: low precision and its controls",
        "network": {"model": name},
        "data": {"reader": "given"},
        "arms": [dict(arm) for arm in arms],
        "views": None if views is None else list(views),
        "seeds": list(seeds),
        "class_axis": class_axis,
    }
    recipe = make_recipe(plan, "the arms")
    rows = _rows(model, calibration, figure, classes, class_axis)
    for part in (rows.calibration, rows.figures):
        check_enough(part)
    twice = check_apart(rows.calibration, rows.figures)
    sources = {ONLY: Source(model, unlabelled(rows.calibration, recipe.unlabelled_rows, recipe.batch))}
    planned = jobs(recipe, sources, images=_images(figure, rows.figures.targets))
    notes = [*repeated(twice, rows.calibration, rows.figures), *check_draws(planned, sources)]
    prepared = Prepared(recipe, sources, rows, planned, notes, twice)
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place))
        predict_all(prepared, folder, progress)
        found = figures(prepared, folder, "")
    return Comparison(found)


def _images(batches: Iterable[Any], targets: Tensor) -> bool:
    """Whether the inputs are pictures with one label each."""
    inputs = first(next(iter(batches)))[0]
    return isinstance(inputs, Tensor) and inputs.ndim == 4 and targets.ndim == 1 and min(inputs.shape[-2:]) > 2


def _rows(
    model: nn.Module,
    calibration: Iterable[Any],
    figure: Iterable[Any],
    classes: Sequence[str] | None,
    class_axis: int,
) -> Rows:
    targets = [_targets(part) for part in (calibration, figure)]
    first_block = next(predict(model, single(params_of(model)), [next(iter(figure))], class_axis=class_axis))
    count = first_block.outputs.shape[-1]
    if max(int(part.max()) for part in targets) >= count or (classes is not None and len(classes) != count):
        given = "" if classes is None else f" and {len(classes)} class names"
        highest = max(int(part.max()) for part in targets)
        raise DataError(f"the network has {count} classes, the targets go up to {highest}{given}")
    names = tuple(classes or map(str, range(count)))
    parts = [
        Given(name, given, y, names, torch.empty(len(y), 0))
        for name, given, y in zip(("calibration", "figures"), (calibration, figure), targets, strict=True)
    ]
    return Rows(*parts)  # type: ignore[arg-type]


def _targets(batches: Iterable[Any]) -> Tensor:
    if iter(batches) is batches:
        raise TypeError("batches are gone through several times: give a list or a DataLoader without shuffling")
    found = [first(batch)[1] for batch in batches]
    if not found or any(part is None for part in found):
        raise DataError("comparing needs labelled batches, (inputs, targets) or a dict with labels; got none")
    return torch.cat([torch.as_tensor(part) for part in found])
