"""Bootstrap intervals of any figure over rows, and of the difference of two figures over the same rows.

    the percentile interval of  figure(rows i_1 .. i_N),  i_n uniform on 0..N-1, over many draws

A mean is a sum, so `bootstrap_mean` needs no more than the values. AUROC, ECE, AURC, a decomposition or an equivalent
size are no sums: `bootstrap_figure` computes them anew on every draw. Two methods judged on the same rows are compared
by the PAIRED forms: rows are drawn once for both, so what is hard for both cancels.
Rows that belong together (pixels of an image, tokens of a text) are drawn together: `clusters` names the one of each
row, and whole clusters are drawn instead of rows. Taken as independent they give intervals far too narrow.
Sources: Efron and Tibshirani, An Introduction to the Bootstrap, 1993; Davison and Hinkley, Bootstrap Methods, 1997.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

# Row numbers drawn at once: 32 MiB of them, whatever N and the number of draws are.
_INDICES_AT_ONCE = 1 << 22

Figure = Callable[..., float | Tensor]
Kind = Literal["percentile", "basic"]


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its bootstrap interval at `level`."""

    estimate: float
    low: float
    high: float
    level: float

    def excludes(self, value: float) -> bool:
        """Whether `value` lies outside the interval."""
        return not self.low <= value <= self.high


def bootstrap_mean(
    values: Tensor, *, seed: int, draws: int = 2000, level: float = 0.95, clusters: Tensor | None = None
) -> Interval:
    """The mean of per-example values `[N]` with its percentile interval; the same seed gives the same interval.

    `clusters` `[N]` holds an integer for each row; None: every row is one of its own. Refused with `ValueError`: other
    shapes, N = 0, values that are not finite, no draw, a level outside (0, 1), clusters that are no integers.

    >>> interval = bootstrap_mean(torch.tensor([1.0, 1.0, 1.0]), seed=0)
    >>> interval.low, interval.estimate, interval.high
    (1.0, 1.0, 1.0)
    """
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values must be [N] with N > 0, not {list(values.shape)}")
    if not bool(torch.isfinite(values).all()):
        raise ValueError("values must be finite")
    _check_draws(draws, level)
    wide = values.detach().cpu().to(torch.float64)
    totals, counts = wide, torch.ones_like(wide)
    if clusters is not None:
        place = _places(clusters, len(wide))
        totals, counts = torch.bincount(place, weights=wide), torch.bincount(place).to(torch.float64)
    means = [totals[drawn].sum(1) / counts[drawn].sum(1) for drawn in _drawn(len(totals), seed, draws)]
    return _interval(float(wide.mean()), torch.cat(means), level, "percentile")


def paired_bootstrap(
    first: Tensor,
    second: Tensor,
    *,
    seed: int,
    draws: int = 2000,
    level: float = 0.95,
    clusters: Tensor | None = None,
) -> Interval:
    """The mean of `first` - `second`, per-example values `[N]` on the same rows in the same order, with its interval.

    Refused: different shapes, and what `bootstrap_mean` refuses.

    >>> paired_bootstrap(torch.tensor([3.0, 9.0]), torch.tensor([1.0, 7.0]), seed=0).excludes(0.0)
    True
    """
    if first.shape != second.shape:
        raise ValueError(f"paired values must have one shape, not {list(first.shape)} and {list(second.shape)}")
    gap = first.to(torch.float64) - second.to(torch.float64)
    return bootstrap_mean(gap, seed=seed, draws=draws, level=level, clusters=clusters)


def bootstrap_figure(
    figure: Figure,
    *rows: Tensor,
    seed: int,
    draws: int = 1000,
    level: float = 0.95,
    clusters: Tensor | None = None,
    kind: Kind = "percentile",
) -> Interval:
    """`figure(*rows)` with its interval, for tensors `[N, ...]` whose first axes are the same rows.

    figure     any function of the rows: `ece`, `auroc`, a lambda around one; members `[K, N, C]` go in as row numbers,
               `bootstrap_figure(lambda i: figure(outputs[:, i], y[i]), torch.arange(N), seed=0)`
    kind       "basic" mirrors the percentiles at the estimate, 2 e - q: better where the figure is biased on few rows
               (every calibration error is, and drawing rows again doubles the bias); it may leave the figure's range
    clusters   as for `bootstrap_mean`; a draw then has as many clusters, not as many rows

    The same seed draws the same rows as `bootstrap_mean`. Refused with `ValueError`: no tensor, different N, N = 0,
    no draw, another level or kind, clusters that are no integers, and a figure that raises or is not finite on a draw.

    >>> values = torch.tensor([1.0, 2.0, 9.0])
    >>> bootstrap_figure(torch.median, values, seed=0)
    Interval(estimate=2.0, low=1.0, high=9.0, level=0.95)
    """
    _check_draws(draws, level)
    if not rows or any(tensor.ndim == 0 or len(tensor) != len(rows[0]) for tensor in rows) or len(rows[0]) == 0:
        raise ValueError(f"tensors [N, ...] of the same N > 0 rows are wanted, not {[list(t.shape) for t in rows]}")
    if kind not in ("percentile", "basic"):
        raise ValueError(f"kind must be 'percentile' or 'basic', not {kind!r}")
    found = [_value(figure, rows, None, "all rows")]
    for draw, index in enumerate(_rows_drawn(len(rows[0]), clusters, seed, draws)):
        found.append(_value(figure, rows, index, f"draw {draw}"))
    return _interval(found[0], torch.tensor(found[1:], dtype=torch.float64), level, kind)


def paired_bootstrap_figure(
    figure: Figure,
    first: Tensor,
    second: Tensor,
    *rows: Tensor,
    seed: int,
    draws: int = 1000,
    level: float = 0.95,
    clusters: Tensor | None = None,
    kind: Kind = "percentile",
) -> Interval:
    """`figure(first, *rows) - figure(second, *rows)` with its interval, both on the same rows of every draw.

    Arguments and refusals as for `bootstrap_figure`.

    >>> y, far, near = torch.zeros(3), torch.tensor([2.0, 3.0, 2.0]), torch.tensor([1.0, 1.0, 1.0])
    >>> paired_bootstrap_figure(lambda p, t: (p - t).square().mean().sqrt(), far, near, y, seed=0).excludes(0.0)
    True
    """

    def gap(one: Tensor, other: Tensor, *rest: Tensor) -> float:
        return float(figure(one, *rest)) - float(figure(other, *rest))

    return bootstrap_figure(
        gap, first, second, *rows, seed=seed, draws=draws, level=level, clusters=clusters, kind=kind
    )


def _value(figure: Figure, rows: tuple[Tensor, ...], index: Tensor | None, where: str) -> float:
    """The figure on some rows, or an error that says on which draw."""
    try:
        value = float(figure(*(r if index is None else r[index.to(r.device)] for r in rows)))
    except ValueError as error:
        raise ValueError(f"the figure fails on {where}: {error}") from error
    if not value - value == 0:
        raise ValueError(f"the figure is {value} on {where}; a draw may lack what few rows of a kind have")
    return value


def _check_draws(draws: int, level: float) -> None:
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"draws must be at least 1 and level in (0, 1), not {draws} and {level}")


def _places(clusters: Tensor, n: int) -> Tensor:
    """The number of each row's cluster, 0..G-1, `[N]`."""
    if clusters.shape != (n,) or clusters.is_floating_point():
        raise ValueError(f"clusters must be integers [{n}], not {clusters.dtype} {list(clusters.shape)}")
    place: Tensor = torch.unique(clusters.detach().cpu(), return_inverse=True)[1]
    return place


def _rows_drawn(n: int, clusters: Tensor | None, seed: int, draws: int) -> Iterator[Tensor]:
    """The rows of one draw after another, those of a drawn cluster side by side."""
    if clusters is None:
        yield from (index for block in _drawn(n, seed, draws) for index in block)
        return
    place = _places(clusters, n)
    members = torch.split(place.argsort(stable=True), torch.bincount(place).tolist())
    for block in _drawn(len(members), seed, draws):
        for chosen in block.tolist():
            yield torch.cat([members[one] for one in chosen])


def _drawn(n: int, seed: int, draws: int) -> Iterator[Tensor]:
    """Blocks `[b, n]` of numbers in 0..n-1; how many draws a block has changes none of them."""
    generator = torch.Generator().manual_seed(seed)
    at_once = max(1, _INDICES_AT_ONCE // n)
    for start in range(0, draws, at_once):
        yield torch.randint(n, (min(at_once, draws - start), n), generator=generator)


def _interval(estimate: float, drawn: Tensor, level: float, kind: Kind) -> Interval:
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = drawn.quantile(tails).tolist()
    if kind == "basic":
        low, high = 2 * estimate - high, 2 * estimate - low
    return Interval(estimate, low, high, level)
