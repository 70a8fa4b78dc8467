"""Pools of quantile forecasts, level by level, and repair of quantiles that cross.

    mean      q(a) = sum_k w_k q_k(a) / sum_k w_k           the quantile function of the Vincent average
    median    q(a) = weighted median of the q_k(a)          midpoint where two members share it

Outputs are `[K, N, ..., Q]`, levels on the last axis. NaN is a forecast that a member did not make: in every cell the
weights are renormalised over the members that are there, and a cell that nobody forecasts is NaN. So levels of one row
may stand for different members, and even members in order can give a mean that crosses.
Averaging quantiles keeps the members' width; averaging their distributions would add the distance between them.
Sources: Vincent 1912; Lichtendahl, Grushka-Cockayne and Winkler, Management Science 2013; repairs: Chernozhukov,
Fernández-Val and Galichon, Econometrica 2010; Fakoor et al., JMLR 2023.
"""

import torch
from torch import Tensor

from pluria.core.reduce import middle
from pluria.core.weights import spread_weights

# Numbers in flight while many rows are repaired: 32 MiB.
_AT_ONCE = 1 << 22


def mean_quantiles(outputs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted mean of the members' quantiles `[K, N, ..., Q]`, per level: `[N, ..., Q]` in the outputs' dtype.

    Refused: what every pool refuses (shapes, negative weights, weights that sum to zero for an example).

    >>> nan = float("nan")
    >>> mean_quantiles(torch.tensor([[[1.0, 2.0, nan]], [[3.0, nan, nan]]]))
    tensor([[2., 2., nan]])
    """
    values, masses = _cells(outputs, weights)
    return ((values * masses).sum(0) / masses.sum(0)).to(outputs.dtype)


def median_quantiles(outputs: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted median of the members' quantiles `[K, N, ..., Q]`, per level: `[N, ..., Q]` in the outputs' dtype.

    Half of the weight lies on each side; where a gap between two members does that, their midpoint is taken. Refused:
    what `mean_quantiles` refuses.

    >>> median_quantiles(torch.tensor([[[1.0]], [[2.0]], [[9.0]]]), torch.tensor([1.0, 1.0, 2.0]))
    tensor([[5.5000]])
    """
    values, masses = _cells(outputs, weights)
    total = masses.sum(0)
    ordered, order = values.masked_fill(masses == 0, torch.inf).sort(0)
    low, high = middle(ordered, (masses / total).gather(0, order))
    return torch.where(total > 0, low / 2 + high / 2, torch.nan).to(outputs.dtype)


def sort_quantiles(quantiles: Tensor) -> Tensor:
    """Quantiles `[..., Q]` rearranged in increasing order, gaps left where they are; the mean pinball loss never rises.

    >>> sort_quantiles(torch.tensor([3.0, float("nan"), 1.0]))
    tensor([1., nan, 3.])
    """
    there = ~quantiles.isnan()
    ordered = quantiles.masked_fill(~there, torch.inf).sort(-1).values
    place = (there.cumsum(-1) - 1).clamp(min=0)
    return ordered.gather(-1, place).masked_fill(~there, torch.nan)


def isotonic_quantiles(quantiles: Tensor) -> Tensor:
    """The nearest non-decreasing quantiles `[..., Q]` in squares, gaps left; the mean pinball loss never rises.

    q_i = max_(a <= i) min_(b >= i) mean(q_a .. q_b). Rows in order come back bit for bit.

    >>> isotonic_quantiles(torch.tensor([3.0, 1.0, 4.0]))
    tensor([2., 2., 4.])
    """
    rows = quantiles.reshape(-1, quantiles.shape[-1])
    there = ~rows.isnan()
    crossing = (rows < rows.masked_fill(~there, -torch.inf).cummax(-1).values).any(-1).nonzero()[:, 0]
    repaired = rows.clone()
    for block in torch.split(crossing, max(1, _AT_ONCE // max(1, rows.shape[-1]) ** 2)):
        repaired[block] = _max_min(rows[block].to(torch.float64), there[block]).to(rows.dtype)
    return repaired.masked_fill(~there, torch.nan).reshape(quantiles.shape)


def _max_min(rows: Tensor, there: Tensor) -> Tensor:
    """Isotonic regression of short rows `[R, Q]`, all at once; missing cells weigh nothing and their result is void."""
    sums, counts = (_from_zero(tensor) for tensor in (rows.masked_fill(~there, 0.0), there.to(torch.float64)))
    total, count = (ends[:, None, 1:] - ends[:, :-1, None] for ends in (sums, counts))
    # [R, a, b]: the mean of the present cells from a to b; infinite where a > b or nothing is present.
    means = torch.where(count > 0, total / count, torch.inf)
    least = means.flip(-1).cummin(-1).values.flip(-1)
    size = rows.shape[-1]
    reachable = torch.ones(size, size, dtype=torch.bool, device=rows.device).triu()
    return least.masked_fill(~reachable | (least == torch.inf), -torch.inf).amax(1)


def _from_zero(values: Tensor) -> Tensor:
    return torch.cat([torch.zeros_like(values[:, :1]), values.cumsum(-1)], -1)


def _cells(outputs: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Values and weights of all cells in float64, both zero where a member is not there or has no weight."""
    spread = spread_weights(outputs, weights)
    if not bool((spread.sum(0) > 0).all()):
        raise ValueError("the members' weights must have a positive sum for every example")
    wide = spread.reshape(*spread.shape, *[1] * (outputs.ndim - 2))
    masses = torch.where(outputs.isnan(), 0.0, wide)
    return outputs.to(torch.float64).masked_fill(masses == 0, 0.0), masses
