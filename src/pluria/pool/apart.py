"""A fitted pool that knows its rows again and refuses to answer them, so that no figure comes from them by mistake.

    pool = apart(fit, outputs, y)        pool(other rows): as ever        pool(rows of the fit): ValueError

A row is known by the outputs of all members, number for number in float64. So rows of equal outputs count as one row,
and a row is not known again in another form: logits of what was fitted on log-probabilities, or of other members.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pluria.pool.fold import pool_of


@dataclass(frozen=True)
class Apart:
    """A fitted `pool` with the marks of the `rows` that it was fitted on, which stand along `axis` of its outputs.

    Calls map what the pool takes to what it gives; ValueError where a row is one of the fit. Files keep the plain pool.
    """

    pool: Any
    axis: int
    rows: frozenset[str]

    def __call__(self, outputs: Tensor, *given: Any) -> Any:
        """The pool's answer for other rows than those of the fit; `given` (weights, features) is handed on."""
        seen = [row for row, mark in enumerate(_marks(outputs, self.axis)) if mark in self.rows]
        if seen:
            raise ValueError(
                f"the pool was fitted on {len(seen)} of these {outputs.shape[self.axis]} rows, such as row {seen[0]}: "
                "take rows that nothing was fitted on, or out_of_fold; `.pool` is the pool that does not ask"
            )
        return self.pool(outputs, *given)


def apart(fit: Callable[..., Any], outputs: Tensor, y: Tensor, **options: Any) -> Apart:
    """Fit a pool that refuses its own rows: `fit(outputs, y, **options)`, for any `fit_...`, and for `greedy`.

    outputs   `[K, N, ..., C]` of members with y `[N, ...]`; of what acts on a pooled answer `[N, ..., C]`
    options   of the fit

    Raises what the fit raises.

    >>> generator = torch.Generator().manual_seed(0)
    >>> x, y = torch.randn(2, 40, 3, generator=generator), torch.arange(40) % 3
    >>> from pluria.pool import fit_linear
    >>> pool = apart(fit_linear, x[:, :20], y[:20])
    >>> pool(x[:, 20:]).shape
    torch.Size([20, 3])
    >>> pool(x[:, 19:])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    ValueError: the pool was fitted on 1 of these 21 rows, such as row 0: ...
    """
    fitted = pool_of(fit(outputs, y, **options))
    axis = max(0, outputs.ndim - y.ndim - 1)  # labels of several kinds, [N, L], stand where the classes stand
    return Apart(fitted, axis, frozenset(_marks(outputs, axis)))


def _marks(outputs: Tensor, axis: int) -> list[str]:
    """What tells each row along an axis from others."""
    if outputs.ndim <= axis:
        raise ValueError(f"rows stand along axis {axis} of the outputs; got {list(outputs.shape)}")
    # Adding zero makes -0.0 what it equals.
    rows = (outputs.detach().cpu().to(torch.float64) + 0.0).movedim(axis, 0).flatten(1).contiguous().numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() for row in rows]
