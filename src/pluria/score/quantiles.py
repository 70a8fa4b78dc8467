"""Scores of quantile forecasts q `[..., N, Q]` at levels a `[Q]` for observed y `[N]`: pinball loss, WIS, coverage.

    pinball   (1{y < q} - a) (q - y)
    CRPS      2 * mean_levels pinball, any levels
    WIS       the same  =  dispersion + under + over,    levels symmetric around 1/2, the median or not
              dispersion  2/Q sum_pairs a (u - l)      l, u: the quantiles at a < 1/2 and 1 - a, the ends of an interval
              over        2/Q (sum_pairs max(l - y, 0) + max(m - y, 0) / 2)        m: the median
              under       2/Q (sum_pairs max(y - u, 0) + max(y - m, 0) / 2)

A cell that holds NaN is a forecast that was not made, and a NaN in y was not observed. Where a cell is missing
its score is NaN too; it counts nowhere. Results are float64.
Sources: Gneiting and Raftery, JASA 2007; Bracher, Ray, Gneiting and Reich, PLOS Computational Biology 2021.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.core.levels import checked_levels
from pluria.score.tally import Rows, Score


@dataclass(frozen=True, eq=False)
class IntervalScore:
    """The weighted interval score and its parts, each `[..., N]`: total = dispersion + under + over."""

    dispersion: Tensor
    under: Tensor
    over: Tensor

    @property
    def total(self) -> Tensor:
        """The score itself, `[..., N]`."""
        return self.dispersion + self.under + self.over


def pinball(quantiles: Tensor, y: Tensor, levels: Tensor) -> Tensor:
    """Pinball loss of every cell, `[..., N, Q]`; NaN where the forecast or the observation is missing.

    Refused with `ValueError`: shapes that do not fit, infinite values, levels that do not increase inside (0, 1).

    >>> pinball(torch.tensor([[1.0, 4.0]]), torch.tensor([2.0]), torch.tensor([0.5, 0.75]))
    tensor([[0.5000, 0.5000]], dtype=torch.float64)
    """
    forecasts, observed, shares = _checked(quantiles, y, levels)
    return ((observed < forecasts).to(torch.float64) - shares) * (forecasts - observed)


def weighted_interval_score(quantiles: Tensor, y: Tensor, levels: Tensor) -> IntervalScore:
    """The weighted interval score of every row with its decomposition; NaN for a row that lacks any of its levels.

    `under` is what forecasts lose that lie too low. Where quantiles cross, dispersion can be negative. Refused with
    `ValueError`: what `pinball` refuses, and levels that are not symmetric around 1/2.

    >>> levels = torch.tensor([0.1, 0.5, 0.9])
    >>> score = weighted_interval_score(torch.tensor([[1.0, 2.0, 4.0]]), torch.tensor([5.0]), levels)
    >>> [round(part.item(), 4) for part in (score.dispersion, score.under, score.over, score.total)]
    [0.2, 1.6667, 0.0, 1.8667]
    """
    forecasts, observed, shares = _checked(quantiles, y, levels)
    below, above = (tensor[..., : len(shares) // 2] for tensor in (forecasts, forecasts.flip(-1)))
    if not torch.allclose(shares + shares.flip(0), torch.ones_like(shares), atol=1e-6):
        raise ValueError(f"levels must be symmetric around 1/2, not {shares.tolist()}")
    # The half that the median adds to each side; NaN in any level has to reach every part.
    median = forecasts[..., len(shares) // 2] if len(shares) % 2 else observed[:, 0].expand(forecasts.shape[:-1])
    gap = (median - observed[:, 0]) / 2 + 0.0 * forecasts.sum(-1)
    parts = (
        (shares[: len(shares) // 2] * (above - below)).sum(-1) + 0.0 * gap,
        (observed - above).clamp(min=0.0).sum(-1) + (-gap).clamp(min=0.0),
        (below - observed).clamp(min=0.0).sum(-1) + gap.clamp(min=0.0),
    )
    return IntervalScore(*(2 * part / len(shares) for part in parts))


def quantile_crps(quantiles: Tensor, y: Tensor, levels: Tensor) -> Tensor:
    """CRPS of every row `[..., N]` as twice its mean pinball loss, in the unit of y.

    It nears the CRPS of the whole law as evenly spaced levels, such as (i - 1/2) / Q, become many. NaN for a row that
    lacks a level. Refused: what `pinball` refuses.

    >>> quantile_crps(torch.tensor([[1.0, 4.0]]), torch.tensor([2.0]), torch.tensor([0.25, 0.75]))
    tensor([0.7500], dtype=torch.float64)
    """
    return 2 * pinball(quantiles, y, levels).mean(-1)


def below(quantiles: Tensor, y: Tensor) -> Tensor:
    """Share of observations at or below each quantile, `[..., Q]`: near the levels where forecasts are calibrated.

    Each level counts the rows where it is there; NaN where there is none. `ValueError` for shapes that do not fit.

    >>> below(torch.tensor([[1.0, 4.0], [1.0, 4.0]]), torch.tensor([2.0, 0.5]))
    tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    forecasts, observed = _fitting(quantiles, y)
    return _share(observed <= forecasts, present(quantiles, y), dim=-2)


def coverage(quantiles: Tensor, y: Tensor) -> Tensor:
    """Share of observations inside each central interval, widest first, `[..., Q // 2]`; ends belong to it.

    The interval of the levels a and 1 - a should cover 1 - 2 a. Rows and refusals as for `below`.

    >>> coverage(torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]), torch.tensor([1.0, 4.0]))
    tensor([0.5000], dtype=torch.float64)
    """
    forecasts, observed = _fitting(quantiles, y)
    there = present(quantiles, y)
    half = forecasts.shape[-1] // 2
    inside = (forecasts <= observed) & (observed <= forecasts.flip(-1))
    return _share(inside[..., :half], (there & there.flip(-1))[..., :half], dim=-2)


def crossing_share(quantiles: Tensor) -> Tensor:
    """Share of rows `[...]` whose quantiles `[..., N, Q]` decrease somewhere; missing levels are passed over.

    Rows without any forecast do not count; NaN where there is none.

    >>> crossing_share(torch.tensor([[1.0, 2.0, 3.0], [1.0, float("nan"), 0.0]]))
    tensor(0.5000, dtype=torch.float64)
    """
    there = ~quantiles.isnan()
    highest = torch.where(there, quantiles, -torch.inf).cummax(-1).values
    return _share((there & (quantiles < highest)).any(-1), there.any(-1), dim=-1)


def present(quantiles: Tensor, y: Tensor) -> Tensor:
    """Which cells count, bool `[..., N, Q]`: those with a forecast and an observation. Compare methods on common cells.

    >>> present(torch.tensor([[1.0, float("nan")]]), torch.tensor([0.0]))
    tensor([[ True, False]])
    """
    forecasts, observed = _fitting(quantiles, y)
    return ~(forecasts.isnan() | observed.isnan())


def quantile_scores(levels: Tensor) -> list[Score]:
    """`Score` values for `tally`: wis, dispersion, under, over, and the share of rows that cross, for pooled `[N, Q]`.

    Each is a mean over the rows that have all their levels; shards add up.

    >>> from pluria.score.tally import tally
    >>> scores = quantile_scores(torch.tensor([0.25, 0.75]))
    >>> tally(scores, torch.tensor([[0.0, 2.0]]), torch.tensor([1.0])).figures()["wis"]
    0.5
    """

    def score(name: str, of: Callable[[IntervalScore], Tensor]) -> Score:
        return Score(
            name, lambda rows: _kept(of(weighted_interval_score(rows.pooled, rows.targets, levels))), _mean_of_kept
        )

    def crossing(rows: Rows) -> dict[str, Tensor]:
        ordered = rows.pooled.to(torch.float64).diff(dim=-1)
        return _kept(torch.where(ordered.isnan().any(-1), torch.nan, (ordered < 0).any(-1).to(torch.float64)))

    parts: Sequence[tuple[str, Callable[[IntervalScore], Tensor]]] = (
        ("wis", lambda s: s.total),
        ("dispersion", lambda s: s.dispersion),
        ("under", lambda s: s.under),
        ("over", lambda s: s.over),
    )
    return [*(score(name, of) for name, of in parts), Score("crossing", crossing, _mean_of_kept)]


def _kept(values: Tensor) -> dict[str, Tensor]:
    return {"sum": values.nan_to_num(nan=0.0), "rows": (~values.isnan()).to(torch.float64)}


def _mean_of_kept(sums: Mapping[str, Tensor], count: int) -> float:
    return float(sums["sum"] / sums["rows"])


def _share(hits: Tensor, counted: Tensor, *, dim: int) -> Tensor:
    return (hits & counted).sum(dim).to(torch.float64) / counted.sum(dim)


def _fitting(quantiles: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Forecasts `[..., N, Q]` and observations `[N, 1]` in float64."""
    if quantiles.ndim < 2 or y.ndim != 1 or quantiles.shape[-2] != len(y):
        raise ValueError(f"quantiles [..., N, Q] and y [N] do not fit: {list(quantiles.shape)} and {list(y.shape)}")
    if bool(quantiles.isinf().any()) or bool(y.isinf().any()):
        raise ValueError("quantiles and observations must be finite; mark what is missing with NaN")
    return quantiles.to(torch.float64), y.to(torch.float64)[:, None]


def _checked(quantiles: Tensor, y: Tensor, levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    forecasts, observed = _fitting(quantiles, y)
    return forecasts, observed, checked_levels(levels, forecasts.shape[-1])
