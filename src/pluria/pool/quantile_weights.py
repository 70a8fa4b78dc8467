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
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pluria.core.levels import checked_levels
from pluria.pool.quantile_mix import LOGITS, Kind, Mix, begin, cells, feature_rows
from pluria.pool.smooth import check_numbers

KINDS = ("coarse", "medium", "fine")
Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class QuantileWeights:
    """Fitted weights: calls map quantiles `[K, N, ..., Q]` (and features `[N, ..., D]` where local) to `[N, ..., Q]`.

    `loss` is the mean pinball loss on the rows of the fit, `start` the one before it. `layers` are pairs of a matrix
    (D rows, as many columns as there are logits) and a bias. Fields are plain data.
    """

    kind: Kind
    members: int
    levels: tuple[float, ...]
    layers: tuple[tuple[Rows, tuple[float, ...]], ...]
    loss: float
    start: float

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind must be one of {[*KINDS]}, not {self.kind!r}")
        layers = tuple((tuple(tuple(row) for row in matrix), tuple(bias)) for matrix, bias in self.layers)
        object.__setattr__(self, "layers", layers)
        object.__setattr__(self, "levels", tuple(self.levels))
        checked_levels(torch.tensor(self.levels), len(self.levels))
        _check_layers(layers, self.members * LOGITS[self.kind](len(self.levels)))

    def __call__(self, outputs: Tensor, features: Tensor | None = None) -> Tensor:
        """Pooled quantiles in the outputs' dtype; NaN where no member is there. They may cross."""
        _check_outputs(outputs, self.members, len(self.levels))
        mix, (values, there) = self._mix(outputs.device), cells(outputs)
        pooled = mix.pool(feature_rows(features, outputs, values.shape[1], mix.inputs), values, there)
        return pooled.reshape(outputs.shape[1:]).to(outputs.dtype)

    def weights(self, features: Tensor | None = None) -> Tensor:
        """The weights where all members are there: `[K]`, `[K, Q]` or `[Q, K, Q]`, one for each row where local."""
        mix = self._mix(torch.device("cpu") if features is None else features.device)
        table = mix.shares(feature_rows(features, torch.empty(0), None, mix.inputs))
        return table if features is not None else table[0]

    def _mix(self, device: torch.device) -> Mix:
        def tensor(numbers: object, columns: int) -> Tensor:
            return torch.tensor(numbers, dtype=torch.float64, device=device).reshape(-1, columns)

        layers = tuple((tensor(matrix, len(bias)), tensor(bias, len(bias))[0]) for matrix, bias in self.layers)
        return Mix(self.kind, self.members, len(self.levels), layers)


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
    """Fit weights to members' quantiles `[K, N, ..., Q]` at `levels` `[Q]` for y `[N, ...]`; NaN is what is missing.

    Give out-of-fold or past forecasts: on rows that a member has seen, the most overfitted member wins. `batch` rows
    are drawn for each step (None: all). Refused with `ValueError`: shapes that do not fit, levels that do not increase
    inside (0, 1), an unknown kind, options below zero, hidden layers without features, no cell that counts.

    >>> levels = torch.tensor([0.25, 0.75])
    >>> good, bad = torch.tensor([[-0.7, 0.7]]), torch.tensor([[4.0, 5.0]])
    >>> y = torch.linspace(-1.4, 1.4, 20)
    >>> outputs = torch.stack([good.repeat(20, 1), bad.repeat(20, 1)])
    >>> bool((fit_quantile_weights(outputs, y, levels, decay=0.0).weights()[0] > 0.95).all())
    True
    """
    _check_outputs(outputs, len(outputs), len(levels))
    if kind not in KINDS or (hidden and features is None):
        raise ValueError(f"kind must be one of {[*KINDS]}, and hidden layers need features; not {kind!r}, {hidden}")
    if min(crossing, margin, decay, steps) < 0 or (batch is not None and batch < 1):
        given = f"{crossing}, {margin}, {decay}, {steps} and {batch}"
        raise ValueError(f"crossing, margin, decay and steps are 0 or more, batch 1 or more or None; got {given}")
    if y.shape != outputs.shape[1:-1]:
        raise ValueError(f"outputs [K, N, ..., Q] and y [N, ...] do not fit: {list(outputs.shape)}, {list(y.shape)}")
    (values, there), rows = cells(outputs), feature_rows(features, outputs, y.numel(), None)
    observed, wide = y.flatten().to(torch.float64), checked_levels(levels, outputs.shape[-1]).to(y.device)
    apart = _distances(values.masked_fill(there == 0, torch.nan), observed, wide, margin)
    task = _Task(values, there, observed, wide, rows, apart, crossing, decay)
    draws = torch.Generator().manual_seed(seed)
    begun = begin(kind, len(outputs), len(wide), rows.shape[1], hidden, draws)
    begun = replace(begun, layers=tuple((m.to(y.device), b.to(y.device)) for m, b in begun.layers))
    start = float(task.pinball(*task.pooled(begun, None)))
    if not start < torch.inf:
        raise ValueError("no cell has a forecast and an observation, or some of them are infinite")
    fitted = _descend(begun, task, start, steps, rate, batch, draws)
    loss = float(task.pinball(*task.pooled(fitted, None)))
    layers = tuple((tuple(map(tuple, matrix.tolist())), tuple(bias.tolist())) for matrix, bias in fitted.layers)
    return QuantileWeights(kind, len(outputs), tuple(wide.tolist()), layers, loss, start)


@dataclass(frozen=True, eq=False)
class _Task:
    values: Tensor
    there: Tensor
    y: Tensor
    levels: Tensor
    features: Tensor
    distances: Tensor
    crossing: float
    decay: float

    def pooled(self, mix: Mix, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Pooled quantiles and observations of some rows (None: all), `[R, Q]` and `[R]`."""
        if rows is None:
            return mix.pool(self.features, self.values, self.there), self.y
        features = self.features if len(self.features) == 1 else self.features[rows]
        return mix.pool(features, self.values[:, rows], self.there[:, rows]), self.y[rows]

    def pinball(self, quantiles: Tensor, y: Tensor) -> Tensor:
        """Mean pinball loss over the cells that count."""
        excess = quantiles - y[:, None]
        loss = torch.maximum((1 - self.levels) * excess, -self.levels * excess)
        counted = ~loss.isnan()
        return torch.where(counted, loss, 0.0).sum() / counted.sum()

    def loss(self, mix: Mix, rows: Tensor | None, unit: float) -> Tensor:
        """What is minimised."""
        quantiles, y = self.pooled(mix, rows)
        total = self.pinball(quantiles, y) / unit
        if self.crossing > 0 and len(self.levels) > 1:
            total = total + self.crossing / unit * _crossing(quantiles, self.distances)
        size = sum(matrix.square().sum() + bias.square().sum() for matrix, bias in mix.layers)
        return total + self.decay * size / len(mix.layers[-1][1])


def _descend(
    begun: Mix, task: _Task, unit: float, steps: int, rate: float, batch: int | None, draws: torch.Generator
) -> Mix:
    leaves = [tensor.requires_grad_() for layer in begun.layers for tensor in layer]
    mix = replace(begun, layers=tuple(zip(leaves[::2], leaves[1::2], strict=True)))
    optimiser = torch.optim.Adam(leaves, lr=rate, amsgrad=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))
    with torch.enable_grad():
        for _ in range(steps):
            rows = None if batch is None else torch.randint(len(task.y), (batch,), generator=draws).to(task.y.device)
            optimiser.zero_grad()
            loss = task.loss(mix, rows, unit)
            if not bool(torch.isfinite(loss)):  # a batch without a cell that counts
                continue
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    return replace(mix, layers=tuple((matrix.detach(), bias.detach()) for matrix, bias in mix.layers))


def _crossing(quantiles: Tensor, distances: Tensor) -> Tensor:
    first, second = torch.triu_indices(len(distances), len(distances), offset=1, device=quantiles.device)
    excess = quantiles[:, first] - quantiles[:, second] + distances[first, second]
    counted = ~excess.isnan()
    return torch.where(counted, excess.clamp(min=0.0), 0.0).sum() / counted.sum().clamp(min=1)


def _distances(outputs: Tensor, y: Tensor, levels: Tensor, margin: float) -> Tensor:
    """The distance `[Q, Q]` that the penalty asks of two levels, from the residuals around the members' medians."""
    middle = outputs[:, :, int((levels - 0.5).abs().argmin())]
    spread = torch.nanquantile(y - middle.nanmedian(0).values, levels)
    return margin * (spread[None, :] - spread[:, None]).clamp(min=0.0)


def _check_layers(layers: tuple[tuple[Rows, tuple[float, ...]], ...], logits: int) -> None:
    """Raise ValueError unless the layers are finite, follow each other, and end in so many logits."""
    for matrix, bias in layers:
        check_numbers("a layer", (*matrix, bias), len(bias))
    columns = [len(bias) for _, bias in layers]
    if not layers or columns[-1] != logits or [len(matrix) for matrix, _ in layers[1:]] != columns[:-1]:
        raise ValueError(f"layers follow each other and end in {logits} columns, one for each weight; got {columns}")


def _check_outputs(outputs: Tensor, members: int, size: int) -> None:
    if outputs.ndim < 3 or outputs.shape[0] != members or outputs.shape[-1] != size or members == 0:
        raise ValueError(f"outputs must be [{members}, N, ..., {size}], members and levels, not {list(outputs.shape)}")
    if not outputs.is_floating_point():
        raise TypeError(f"outputs must be floating point, not {outputs.dtype}")
