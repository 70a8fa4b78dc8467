"""Bootstrap intervals of a mean over examples, and of the difference of two means over the same examples.

    the percentile interval of  mean_n x[i_n],  i_n uniform on 0..N-1, over many draws

Two methods judged on the same rows are compared by the PAIRED form: rows are drawn once for both, so what is hard for
both cancels. The examples are taken as independent; with dense outputs hand in one value per image or document.
Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

# Row numbers drawn at once: 32 MiB of them, whatever N and the number of draws are.
_INDICES_AT_ONCE = 1 << 22


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


def bootstrap_mean(values: Tensor, *, seed: int, draws: int = 2000, level: float = 0.95) -> Interval:
    """The mean of per-example values `[N]` with its percentile interval; the same seed gives the same interval.

    Refused with `ValueError`: other shapes, N = 0, values that are not finite, no draw, a level outside (0, 1).

    >>> interval = bootstrap_mean(torch.tensor([1.0, 1.0, 1.0]), seed=0)
    >>> interval.low, interval.estimate, interval.high
    (1.0, 1.0, 1.0)
    """
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"values must be [N] with N > 0, not {list(values.shape)}")
    if not bool(torch.isfinite(values).all()):
        raise ValueError("values must be finite")
    if draws < 1 or not 0 < level < 1:
        raise ValueError(f"draws must be at least 1 and level in (0, 1), not {draws} and {level}")
    wide = values.detach().cpu().to(torch.float64)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = _means(wide, seed, draws).quantile(tails).tolist()
    return Interval(float(wide.mean()), low, high, level)


def paired_bootstrap(first: Tensor, second: Tensor, *, seed: int, draws: int = 2000, level: float = 0.95) -> Interval:
    """The mean of `first` - `second`, per-example values `[N]` on the same rows in the same order, with its interval.

    Refused: different shapes, and what `bootstrap_mean` refuses.

    >>> paired_bootstrap(torch.tensor([3.0, 9.0]), torch.tensor([1.0, 7.0]), seed=0).excludes(0.0)
    True
    """
    if first.shape != second.shape:
        raise ValueError(f"paired values must have one shape, not {list(first.shape)} and {list(second.shape)}")
    return bootstrap_mean(first.to(torch.float64) - second.to(torch.float64), seed=seed, draws=draws, level=level)


def _means(values: Tensor, seed: int, draws: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    n = len(values)
    at_once = max(1, _INDICES_AT_ONCE // n)
    blocks = [min(at_once, draws - start) for start in range(0, draws, at_once)]
    return torch.cat([values[torch.randint(n, (size, n), generator=generator)].mean(1) for size in blocks])
