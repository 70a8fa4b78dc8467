"""The pool over predicted outputs: what the file holds as fitted, or what is asked for by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pluria.core.errors import DataError, PluriaError

if TYPE_CHECKING:
    from pluria.pool import Chain
    from pluria.store.file import Loaded

OFF = "off"


def pool_of(loaded: Loaded, asked: str | None, members: int, classes: int) -> Chain | None:
    """The pool for that many members and classes (0: not known), tried on one row before anything is run.

    Without `asked` it is the fitted one that the file holds; a name in the file is what its maker says of it, and fits
    nothing. Raises DataError for a pool of the file that cannot be read or does not fit, PluriaError for a name that is
    no pool.
    """
    from pluria.pool.chain import POOLS, Chain
    from pluria.pool.kinds import check_pool, from_dict

    held = loaded.about.get("pool")
    if asked == OFF or (asked is None and not isinstance(held, Mapping)):
        return None
    if asked is not None and asked not in POOLS:
        raise PluriaError(f"--pool is {OFF} or one of {', '.join(sorted(POOLS))}; got {asked!r}")
    try:
        pool = Chain((from_dict(held) if asked is None else asked,))  # type: ignore[arg-type]
        check_pool(pool, members, classes or None)
        _try(pool, members, classes)
    except (ValueError, TypeError) as error:
        if asked is not None:
            raise PluriaError(f"--pool {asked}: {error}") from None
        raise DataError(
            f"the file's pool cannot be used: {error}. `--pool {OFF}` stores the members' outputs alone"
        ) from None
    return pool


def _try(pool: Chain, members: int, classes: int) -> None:
    """Pool a row of zeros; ValueError where that gives no answer of one row."""
    import torch

    if classes == 0:
        return
    answer = pool(torch.zeros(members, 1, classes))
    if answer.shape[:1] != (1,) or answer.ndim != 2:
        raise ValueError(f"it makes {list(answer.shape)} of {members} members' outputs, and is no pool by itself")
