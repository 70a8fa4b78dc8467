"""Learned weights for members' quantiles: a softmax for each answer, fitted by the pinball loss.

    coarse    q(a) = sum_k w_k q_k(a)              one weight for each member
    medium    q(a) = sum_k w_k(a) q_k(a)           one for each member and level
    fine      q(a) = sum_kb w_kb(a) q_k(b)         every level mixes all members and all levels

All weights lie on the simplex. Global weights are the same for all rows. Local ones are a softmax of a network of the
row's features x: linear, or with hidden layers (ELU); one-hot features give one set of weights for each group. What is
minimised, in units of the loss at the start, is

    mean pinball  +  crossing * mean_(a < b) max(q(a) - q(b) + margin (r(b) - r(a)), 0)
                  +  decay * |parameters|^2 / number of logits

where r are the quantiles of the residuals around the median of the members' medians. Members that are missing get no
weight, cell by cell, and the others are renormalised, in the fit as afterwards.
Source: Fakoor, Kim, Mueller, Smola and Tibshirani, JMLR 2023. Fine weights start here near the level itself, not
uniform over all levels, which would start from forecasts without width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import elu

Kind = Literal["coarse", "medium", "fine"]
Layers = tuple[tuple[Tensor, Tensor], ...]

# Logits of other levels where fine weights start: together they have a tenth of the weight with twenty levels.
_ELSEWHERE = -5.0
_SUMS = {"coarse": "nk,knq->nq", "medium": "nkq,knq->nq", "fine": "nokq,knq->no"}


@dataclass(frozen=True, eq=False)
class QuantileWeights:
    """Fitted weights: calls map quantiles `[K, N, Q]` (and features `[N, D]` where local) to `[N, Q]`.

    `loss` is the mean pinball loss on the rows of the fit, `start` the one before it. Layers are pairs of a matrix
    `[in, out]` and a bias `[out]`.
    """

    kind: Kind
    members: int
    levels: Tensor
    layers: Layers
    loss: float
    start: float

    def __call__(self, outputs: Tensor, features: Tensor | None = None) -> Tensor:
        """Pooled quantiles `[N, Q]` in the outputs' dtype; NaN where no member is there. They may cross."""
        _check_outputs(outputs, self.members, len(self.levels))
        rows = _features(features, outputs, self.layers[0][0].shape[0])
        return _combine(self.kind, _logits(self, rows), *_cells(outputs)).to(outputs.dtype)

    def weights(self, features: Tensor | None = None) -> Tensor:
        """The weights where all members are there: `[K]`, `[K, Q]` or `[Q, K, Q]`, with a leading N where local."""
        rows = _features(features, self.levels[None, :, None], self.layers[0][0].shape[0])
        table = _shares(self.kind, _logits(self, rows))
        return table if features is not None else table[0]


def fit_quantile_weights(
    outputs: Tensor,
    y: Tensor,
    levels: Tensor,
    *,
    kind: Kind = "medium",
    features: Tensor | None = None,
    hidden: Sequence[int] = (),
    crossing: float = 1.0,
    margin: float = 0.0,
    decay: float = 1e-3,
    steps: int = 300,
    rate: float = 0.05,
    batch: int | None = None,
    seed: int = 0,
) -> QuantileWeights:
    """Fit weights to members' quantiles `[K, N, Q]` at `levels` `[Q]` for y `[N]`; NaN marks what is missing.

    Give out-of-fold or past forecasts: on rows that a member has seen, the most overfitted member wins. `batch` rows
    are drawn for each step (None: all). Refused with `ValueError`: shapes that do not fit, an unknown kind, hidden
    layers without features, no cell that counts.

    >>> levels = torch.tensor([0.25, 0.75])
    >>> good, bad = torch.tensor([[-0.7, 0.7]]), torch.tensor([[4.0, 5.0]])
    >>> y = torch.linspace(-1.4, 1.4, 20)
    >>> outputs = torch.stack([good.repeat(20, 1), bad.repeat(20, 1)])
    >>> bool((fit_quantile_weights(outputs, y, levels, decay=0.0).weights()[0] > 0.95).all())
    True
    """
    _check_outputs(outputs, len(outputs), len(levels))
    if kind not in _SUMS or (hidden and features is None):
        raise ValueError(f"kind must be one of {[*_SUMS]}, and hidden layers need features; not {kind!r}, {hidden}")
    if y.shape != outputs.shape[1:2]:
        raise ValueError(f"outputs [K, N, Q] and y [N] do not fit: {list(outputs.shape)} and {list(y.shape)}")
    rows = _features(features, outputs, None)
    generator = torch.Generator().manual_seed(seed)
    begun = _begin(kind, len(outputs), levels.to(torch.float64), rows.shape[1], hidden, generator)
    task = _Task(*_cells(outputs), y.to(torch.float64), rows, _distances(outputs, y, levels, margin), crossing, decay)
    start = task.pinball(begun, None)
    if not bool(torch.isfinite(start)):
        raise ValueError("no cell has a forecast and an observation, or some of them are infinite")
    layers = _descend(begun, task, float(start), steps, rate, batch, generator)
    fitted = QuantileWeights(kind, len(outputs), begun.levels, layers, 0.0, float(start))
    return QuantileWeights(kind, len(outputs), begun.levels, layers, float(task.pinball(fitted, None)), float(start))


@dataclass(frozen=True, eq=False)
class _Task:
    values: Tensor
    there: Tensor
    y: Tensor
    features: Tensor
    distances: Tensor
    crossing: float
    decay: float

    def pooled(self, pool: QuantileWeights, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pooled quantiles and observations of some rows, `[R, Q]` and `[R]`."""
        if rows is None:
            return _combine(pool.kind, _logits(pool, self.features), self.values, self.there), self.y
        features = self.features if len(self.features) == 1 else self.features[rows]
        cells = (self.values[:, rows], self.there[:, rows])
        return _combine(pool.kind, _logits(pool, features), *cells), self.y[rows]

    def pinball(self, pool: QuantileWeights, rows: Tensor | None) -> Tensor:
        """Mean pinball loss over the cells that count."""
        return _pinball(*self.pooled(pool, rows), pool.levels)

    def loss(self, pool: QuantileWeights, rows: Tensor | None, unit: float) -> Tensor:
        """What is minimised."""
        quantiles, y = self.pooled(pool, rows)
        total = _pinball(quantiles, y, pool.levels) / unit
        if self.crossing > 0 and pool.kind != "coarse":
            total = total + self.crossing / unit * _crossing(quantiles, self.distances)
        size = sum(matrix.square().sum() + bias.square().sum() for matrix, bias in pool.layers)
        return total + self.decay * size / len(pool.layers[-1][1])


def _descend(
    begun: QuantileWeights, task: _Task, unit: float, steps: int, rate: float, batch: int | None, draws: torch.Generator
) -> Layers:
    device = task.y.device
    leaves = [tensor.to(device).requires_grad_() for layer in begun.layers for tensor in layer]
    layers = tuple(zip(leaves[::2], leaves[1::2], strict=True))
    pool = QuantileWeights(begun.kind, begun.members, begun.levels.to(device), layers, 0.0, unit)
    optimiser = torch.optim.Adam(leaves, lr=rate, amsgrad=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    with torch.enable_grad():
        for _ in range(steps):
            rows = None if batch is None else torch.randint(len(task.y), (batch,), generator=draws).to(device)
            optimiser.zero_grad()
            loss = task.loss(pool, rows, unit)
            if not bool(torch.isfinite(loss)):  # a batch without a cell that counts
                continue
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return tuple((matrix.detach(), bias.detach()) for matrix, bias in layers)


def _pinball(quantiles: Tensor, y: Tensor, levels: Tensor) -> Tensor:
    excess = quantiles - y[:, None]
    loss = torch.maximum((1 - levels) * excess, -levels * excess)
    counted = ~loss.isnan()
    return torch.where(counted, loss, 0.0).sum() / counted.sum()


def _crossing(quantiles: Tensor, distances: Tensor) -> Tensor:
    first, second = torch.triu_indices(len(distances), len(distances), offset=1, device=quantiles.device)
    excess = quantiles[:, first] - quantiles[:, second] + distances[first, second]
    counted = ~excess.isnan()
    return torch.where(counted, excess.clamp(min=0.0), 0.0).sum() / counted.sum().clamp(min=1)


def _distances(outputs: Tensor, y: Tensor, levels: Tensor, margin: float) -> Tensor:
    """The distance `[Q, Q]` that the penalty asks of two levels, from the residuals around the members' medians."""
    wide = levels.to(torch.float64)
    middle = outputs[:, :, int((wide - 0.5).abs().argmin())].to(torch.float64)
    residuals = (y.to(torch.float64) - middle.nanmedian(0).values).cpu()
    spread = torch.nanquantile(residuals, wide.cpu()).to(y.device)
    return margin * (spread[None, :] - spread[:, None]).clamp(min=0.0)


def _begin(
    kind: Kind, members: int, levels: Tensor, inputs: int, hidden: Sequence[int], draws: torch.Generator
) -> QuantileWeights:
    """Weights before the fit: equal, with hidden layers drawn and a last layer of zeros."""
    size = len(levels)
    outputs = members * {"coarse": 1, "medium": size, "fine": size * size}[kind]
    shapes = list(pairwise([inputs, *hidden, outputs]))
    drawn = [torch.randn(shape, generator=draws, dtype=torch.float64) / max(1, shape[0]) ** 0.5 for shape in shapes]
    drawn[-1] = torch.zeros_like(drawn[-1])
    layers = tuple((matrix, torch.zeros(matrix.shape[1], dtype=torch.float64)) for matrix in drawn)
    return QuantileWeights(kind, members, levels, layers, 0.0, 0.0)


def _logits(pool: QuantileWeights, features: Tensor) -> Tensor:
    """Logits `[N or 1, K]`, `[., K, Q]` or `[., Q, K, Q]`."""
    hidden, size = features, len(pool.levels)
    for number, (matrix, bias) in enumerate(pool.layers):
        hidden = (hidden if number == 0 else elu(hidden)) @ matrix.to(features.device) + bias.to(features.device)
    shapes: dict[Kind, list[int]] = {
        "coarse": [-1, pool.members],
        "medium": [-1, pool.members, size],
        "fine": [-1, size, pool.members, size],
    }
    logits = hidden.reshape(shapes[pool.kind])
    if pool.kind != "fine":
        return logits
    away = 1 - torch.eye(size, dtype=torch.float64, device=features.device)
    return logits + _ELSEWHERE * away[:, None, :]


def _shares(kind: Kind, logits: Tensor) -> Tensor:
    over = {"coarse": (1,), "medium": (1,), "fine": (2, 3)}[kind]
    # Only ratios count; without the largest, logits of any size stay finite.
    masses = (logits - logits.amax(over, keepdim=True)).exp()
    return masses / masses.sum(over, keepdim=True)


def _combine(kind: Kind, logits: Tensor, values: Tensor, there: Tensor) -> Tensor:
    """Weighted means `[N, Q]` over the cells that are there; NaN where there is none."""
    shares, sums = _shares(kind, logits), _SUMS[kind]
    if len(shares) == 1:  # global: one table for all rows
        shares, sums = shares[0], sums[1:]
    total, mass = torch.einsum(sums, shares, values), torch.einsum(sums, shares, there)
    # Dividing by a mass of zero would send NaN back into the fit.
    return torch.where(mass > 0, total / torch.where(mass > 0, mass, 1.0), torch.nan)


def _cells(outputs: Tensor) -> tuple[Tensor, Tensor]:
    there = ~outputs.isnan()
    return outputs.to(torch.float64).masked_fill(~there, 0.0), there.to(torch.float64)


def _features(features: Tensor | None, outputs: Tensor, wanted: int | None) -> Tensor:
    """Features `[N, D]` in float64; one row without any where weights are global."""
    given = torch.zeros(1, 0, device=outputs.device) if features is None else features
    fits = given.ndim == 2 and (features is None or outputs.shape[0] == 1 or len(given) == outputs.shape[1])
    if not fits or wanted not in (None, given.shape[1]) or not bool(torch.isfinite(given).all()):
        raise ValueError(f"features must be finite and [N, {'D' if wanted is None else wanted}] for these rows, "
                         f"not {None if features is None else list(given.shape)}")  # fmt: skip
    return given.to(torch.float64)


def _check_outputs(outputs: Tensor, members: int, size: int) -> None:
    if outputs.ndim != 3 or outputs.shape[0] != members or outputs.shape[2] != size or members == 0:
        raise ValueError(f"outputs must be [{members}, N, {size}], members and levels, not {list(outputs.shape)}")
    if not outputs.is_floating_point():
        raise TypeError(f"outputs must be floating point, not {outputs.dtype}")
