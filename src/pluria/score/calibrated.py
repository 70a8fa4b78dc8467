"""Cross-validated calibrated NLL: each row is judged after a calibration that was fitted without it.

    in every repeat the rows fall into parts at random; a part is judged by the fit on the others
    value of a row = mean over the repeats of its NLL          calibrated log-likelihood = - mean over the rows

Methods differ in how sure they are, and a temperature mends that at no cost, so NLL without one mostly ranks
temperatures. Here no rows have to be set aside for it. Since there is one value for each row, two methods are compared
by `paired_bootstrap`. A fit on half the rows is a little worse than one on all of them.
Source: Ashukha et al., ICLR 2020 (two halves, five repeats, a temperature).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from pluria.score.proper import nll
from pluria.score.rows import IGNORED

Fit = Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]]
"""(log-probabilities [M, C], classes [M]) -> a map of log-probabilities, such as `pluria.pool.fit_temperature`."""


def calibrated_nll(
    log_probs: Tensor,
    y: Tensor,
    *,
    fit: Fit,
    splits: int = 2,
    repeats: int = 5,
    clusters: Tensor | None = None,
    seed: int = 0,
) -> Tensor:
    """Calibrated NLL of every row, float64 `[N]`, for pooled log-probabilities `[N, C]` and classes `[N]`.

    `clusters` `[N]` holds an integer for each row; rows with the same one fall into the same part (the pixels of an
    image). The same seed gives the same parts for every method. Refused with `ValueError`: what `nll` and `fit` refuse,
    ignored targets, fewer than two splits, no repeat, clusters of another shape or type, fewer of them than splits.

    >>> rows = torch.tensor([[0.9, 0.1]]).log().repeat(100, 1)
    >>> halves = calibrated_nll(rows, torch.arange(100) % 4 // 3, fit=lambda p, y: lambda q: q)
    >>> halves.mean()
    tensor(0.6547, dtype=torch.float64)
    """
    nll(log_probs, y)
    if bool((y.long() == IGNORED).any()):
        raise ValueError("drop ignored targets and their rows first, with flatten")
    own = torch.arange(len(y)) if clusters is None else clusters.cpu()
    if own.shape != (len(y),) or own.is_floating_point():
        raise ValueError(f"clusters must be integers [{len(y)}], not {own.dtype} {list(own.shape)}")
    _, own = torch.unique(own, return_inverse=True)
    count = int(own.max()) + 1 if len(own) else 0
    if repeats < 1 or not 2 <= splits <= count:
        raise ValueError(f"repeats >= 1 and 2 <= splits <= {count} clusters are wanted, not {repeats} and {splits}")
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(len(y), dtype=torch.float64, device=log_probs.device)
    for _ in range(repeats):
        part = (torch.randperm(count, generator=generator) % splits)[own].to(log_probs.device)
        for judged in (part == split for split in range(splits)):
            total[judged] += nll(fit(log_probs[~judged], y[~judged])(log_probs[judged]), y[judged])
    return total / repeats
