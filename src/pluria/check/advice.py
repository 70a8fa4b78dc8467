"""One sentence on what to do with several models.

From losses where they were measured. Otherwise from how much of its spread their mean keeps, on the way from unrelated
models, 1 / sqrt(K), to equal ones, 1; thresholds for that are not published, and these two are our own.
"""

from __future__ import annotations

from collections.abc import Sequence

from pluria.check.between import Between
from pluria.check.measured import Measured

ALIKE, UNLIKE = 0.9, 0.5
DIGITS = 4
"""Losses are as good as each other where they are equal to as many digits as are shown."""


def advice(problems: Sequence[str], apart: Between | None, measured: Measured | None) -> str:
    """One sentence."""
    if problems or apart is None:
        return "They cannot be merged tensor by tensor; their outputs can still be pooled, if they answer alike."
    if measured is not None:
        return _by_losses(measured)
    if max(max(row) for row in apart.distance) == 0:
        return "They are equal, so there is nothing to merge."
    way = (apart.spread - apart.unrelated) / (1 - apart.unrelated)
    if way > ALIKE:
        return "They lie close together, as fine-tunes of one model do: average them, and judge the mean on data."
    if way < UNLIKE:
        return (
            "They look unrelated, as models trained apart do, and their mean is likely to be worthless: pool their "
            "outputs, or align them first and judge the mean on data."
        )
    return "They are neither close nor unrelated: only data can tell whether their mean is of use."


def _by_losses(found: Measured) -> str:
    best, ensemble = min(found.ends), min(c.loss for c in found.choices if c.forwards > 1)
    mean, aligned = (None if loss is None else round(loss, DIGITS) for loss in (found.mean, found.aligned))
    wanted = round(best, DIGITS)
    beside = f"the best single model has {best:.4f}, the ensemble {ensemble:.4f} for {len(found.ends)} forwards"
    if mean is not None and mean <= wanted and (aligned is None or mean <= aligned):
        return f"Average them: the mean has a loss of {found.mean:.4f} on these rows, {beside}."
    if aligned is not None and aligned <= wanted:
        return f"Align them with rebasin, then average them: that mean has a loss of {found.aligned:.4f}; {beside}."
    after = "" if found.aligned is None else f", and {found.aligned:.4f} after aligning"
    return f"Do not average them: the mean has a loss of {found.mean:.4f}{after}; {beside}."
