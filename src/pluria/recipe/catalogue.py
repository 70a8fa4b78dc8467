"""Every method in one written table, verb by verb: the rows are in `rows/`, what the laws are in `method.py`."""

from __future__ import annotations

from pluria.recipe.method import Method
from pluria.recipe.rows.align import ALIGN
from pluria.recipe.rows.fit import FIT
from pluria.recipe.rows.look import LOOK
from pluria.recipe.rows.merge import MERGE
from pluria.recipe.rows.pool import POOL
from pluria.recipe.rows.sample import SAMPLE
from pluria.recipe.rows.train import TRAIN

CATALOGUE: tuple[Method, ...] = (*SAMPLE, *TRAIN, *ALIGN, *MERGE, *POOL, *FIT, *LOOK)


def methods(verb: str | None = None) -> tuple[Method, ...]:
    """All rows, or those of one verb."""
    return tuple(method for method in CATALOGUE if verb in (None, method.verb))
