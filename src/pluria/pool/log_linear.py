"""Log-linear pool: a product of powers of the members' probabilities, with a fitted exponent for each member.

    log p  =  log_softmax( sum_k a_k log p_k )        a_k >= 0

    minimise  mean_n( -log p(y_n) )  +  ridge / (2 N) sum_k (a_k - mean a)^2

The exponents need not sum to one, so a temperature is included: equal exponents a / K are `mean_logit` at temperature
1 / a. The NLL is convex in the exponents. The ridge draws them towards each other, never towards a size; it counts like
a Gaussian prior of variance 1 / ridge and fades as rows come. Sources: Genest and Zidek, Statistical Science 1986;
Hinton, Neural Computation 2002 (products of experts).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.pool.average import mean_logit
from pluria.pool.newton import Slopes, nonnegative_minimum
from pluria.pool.rows import at_targets, check_members, fitting_rows
from pluria.pool.temperature import fit_temperature

BLOCK = 2**22
"""Numbers of one block of rows, so that memory does not grow with their count."""


@dataclass(frozen=True)
class LogLinear:
    """A fitted log-linear pool: calls map `[K, N, ..., C]` (logits or log-probabilities) to `[N, ..., C]`.

    `exponents` has one number for each member; a member whose exponent is zero is not read. `clamped` says that the
    best size of the exponents lies beyond the bounds of a temperature: the rows were all right, or no better than
    chance. The fields are plain data: `LogLinear(**dataclasses.asdict(pool))` is the same pool, through JSON as well.

    >>> LogLinear((2.0, 0.0))(torch.tensor([[[0.8, 0.2]], [[0.5, 0.5]]]).log()).exp()  # 0.64 : 0.04
    tensor([[0.9412, 0.0588]])
    """

    exponents: tuple[float, ...]
    clamped: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "exponents", tuple(self.exponents))
        if not all(math.isfinite(a) and a >= 0 for a in self.exponents) or not sum(self.exponents) > 0:
            raise ValueError(f"exponents must be finite, not negative and not all zero; got {self.exponents}")

    def __call__(self, log_probs: Tensor) -> Tensor:
        """Pooled log-probabilities `[N, ..., C]` in the dtype of `log_probs` `[K, N, ..., C]`."""
        check_members(log_probs, len(self.exponents))
        pooled = mean_logit(log_probs.to(torch.float64), torch.tensor(self.exponents, dtype=torch.float64))
        return (pooled * sum(self.exponents)).log_softmax(-1).to(log_probs.dtype)


def fit_log_linear(log_probs: Tensor, y: Tensor, *, ridge: float = 1.0, ignore_index: int = -100) -> LogLinear:
    """The exponents of least mean NLL of members' `log_probs` `[K, N, ..., C]` (or logits) at classes `y` `[N, ...]`.

    Fit it on rows that no member was trained on and that give no figure afterwards. `ridge` (0 or more) draws the
    exponents towards each other. Rows whose target is `ignore_index` do not count. A class that one member holds
    impossible is impossible. Deterministic.
    Refused: what `fit_temperature` refuses, fewer than max(20, 2 K) rows, a target that any member holds impossible.
    """
    if not (math.isfinite(ridge) and ridge >= 0):
        raise ValueError(f"ridge must be 0 or more, and finite; got {ridge}")
    rows, targets = fitting_rows(log_probs, y, ignore_index)
    rows, offset = _possible(rows, targets)
    members = len(rows)
    equal = rows.mean(0) + offset
    size = 1 / fit_temperature(equal, targets).value
    start = torch.full((members,), size / members, dtype=torch.float64)
    slopes = exponent_slopes(rows, targets, offset)
    found = nonnegative_minimum(start, lambda a: _drawn(slopes(a), a, ridge / len(targets)))
    return _bounded(found if bool(found.sum() > 0) else start, rows, targets, offset)


def exponent_slopes(rows: Tensor, targets: Tensor, offset: Tensor) -> Callable[[Tensor], Slopes]:
    """Mean NLL of log_softmax(offset + sum_k a_k rows_k) with its derivatives by a, for finite rows `[K, M, C]`."""
    size = max(1, BLOCK // (rows.shape[0] * rows.shape[2]))
    blocks = list(zip(torch.split(rows, size, 1), torch.split(targets, size), torch.split(offset, size), strict=True))

    def slopes(exponents: Tensor) -> Slopes:
        value, gradient, hessian = 0.0, torch.zeros(len(rows)).double(), torch.zeros(len(rows), len(rows)).double()
        for part, chosen, start in blocks:
            pooled = (torch.tensordot(exponents.to(part.device), part, 1) + start).log_softmax(-1)
            probs = pooled.exp()
            expected = (part * probs).sum(-1)
            spread = ((part - expected[..., None]) * probs.sqrt()).flatten(1)
            value -= float(at_targets(pooled[None], chosen).sum())
            gradient += (expected - at_targets(part, chosen)).sum(1).cpu()
            hessian += (spread @ spread.T).cpu()
        return value / len(targets), gradient / len(targets), hessian / len(targets)

    return slopes


def _possible(rows: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Finite rows, and an offset `[M, C]` of -inf at the classes that a member holds impossible."""
    if bool((impossible := at_targets(rows, targets) == -torch.inf).any()):
        member, row = impossible.nonzero()[0].tolist()
        raise ValueError(
            f"member {member} holds the target of row {row} impossible, so a product of powers has no finite NLL; "
            "raise its probabilities to a small positive one, or leave it out"
        )
    barred = (rows == -torch.inf).any(0)
    offset = torch.zeros_like(rows[0]).masked_fill(barred, -torch.inf)
    return rows.masked_fill(barred, 0.0), offset


def _drawn(found: Slopes, exponents: Tensor, strength: float) -> Slopes:
    """With the penalty strength / 2 sum_k (a_k - mean a)^2."""
    value, gradient, hessian = found
    apart = exponents - exponents.mean()
    centring = torch.eye(len(exponents)).double() - 1 / len(exponents)
    penalty = strength / 2 * float(apart @ apart)
    return value + penalty, gradient + strength * apart, hessian + strength * centring


def _bounded(exponents: Tensor, rows: Tensor, targets: Tensor, offset: Tensor) -> LogLinear:
    """Where the best size of the exponents lies beyond a temperature's bounds, they stop there and say so."""
    shares = exponents / exponents.sum()
    temperature = fit_temperature(torch.tensordot(shares.to(rows.device), rows, 1) + offset, targets)
    if temperature.clamped:
        exponents = shares / temperature.value
    return LogLinear(tuple(exponents.tolist()), temperature.clamped)
