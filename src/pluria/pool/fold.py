"""Answers of a fitted pool for the rows it is fitted on, each by a fit that has not seen the row.

    rows fall into F folds; the rows of fold f are answered by the pool that was fitted on all others

So a pool can be judged, and pools compared, where no rows are left for it. What the members themselves have seen is
another matter: their outputs must come from rows that they were not trained on. Source: Stone, "Cross-validatory choice
and assessment of statistical predictions", JRSS B 1974.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pluria.pool.linear import Linear

Fit = Callable[[Tensor, Tensor], Any]
"""(members' outputs [K, N, ..., C], targets [N, ...]) -> a pool, or weights [K] of one."""


def out_of_fold(fit: Fit, log_probs: Tensor, y: Tensor, *, folds: int | Tensor = 5) -> Tensor:
    """Pooled `[N, ..., C]` for members' `log_probs` `[K, N, ..., C]` at targets `y` `[N, ...]`.

    `fit` gives a pool, or weights `[K]` as `greedy` does, for the mean of probabilities.
    `folds` is how many there are (example n falls into fold n modulo that), or the fold of each example, integers
    `[N]`: examples that belong together, such as views of one scene, must share a fold. Raises ValueError for fewer
    than two folds and shapes that do not fit; and what `fit` raises.
    """
    if log_probs.ndim < 2 or len(y) != log_probs.shape[1]:
        raise ValueError(f"y must have {list(log_probs.shape)[1:2]} examples, not {list(y.shape)[:1]}")
    own = torch.arange(len(y)) % max(folds, 1) if isinstance(folds, int) else folds.cpu()
    if own.shape != (len(y),) or own.is_floating_point():
        raise ValueError(f"folds must be integers [{len(y)}], not {own.dtype} {list(own.shape)}")
    if len(names := sorted(set(own.tolist()))) < 2:
        raise ValueError("two folds or more are wanted, so that every fit leaves something out")
    pooled = torch.empty_like(log_probs[0])
    for name in names:
        out = (own == name).to(log_probs.device)
        pooled[out] = pool_of(fit(log_probs[:, ~out], y[~out.to(y.device)]))(log_probs[:, out])
    return pooled


def pool_of(fitted: Any) -> Any:
    """What a fit gives, as something to call: weights `[K]` become those of a linear pool."""
    return Linear(tuple(fitted.tolist())) if isinstance(fitted, Tensor) else fitted
