"""The pools that an arm of a recipe may name, each with the temperature that stands behind it.

plain      a rule without parameters; the temperature is fitted on its answers
weights    a weight for each member by labelled rows, then the mean of probabilities; the temperature is fitted on the
           answers of fits that have not seen the row
own        fitted together with a temperature of its own; none stands behind it

Pool and temperature are fitted on calibration rows alone. The loss that arms are compared by is their NLL there; where
labels fit the pool, each row is answered by a fit that has not seen it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.pool import (
    Temperature,
    fit_extremised,
    fit_linear,
    fit_log_linear,
    fit_temperature,
    greedy,
    mean_logit,
    mean_probability,
    median_probability,
    out_of_fold,
    trimmed_probability,
    vote,
    zpe,
)
from pluria.pool.rows import LEAST
from pluria.recipe.outputs import Outputs
from pluria.score import nll
from pluria.zoo.dataset import IGNORED

Pool = str
Combine = Callable[[Tensor, Tensor | None], Tensor]
"""(members' logits [K, M, C] in float64, weights) -> log-probabilities [M, C]."""

FOLDS = 5
CHOICE: tuple[Pool, ...] = ("mean_probability", "mean_logit")
"""An arm that names no pool takes the better of these; the first also stands before the temperature."""


@dataclass(frozen=True)
class Rule:
    """How a pool comes from logits `[K, M, C]` and targets `[M]`, whether labels fit it, and its own temperature."""

    fit: Callable[[Tensor, Tensor], Combine]
    labelled: bool = False
    own: bool = False


@dataclass(frozen=True)
class Answer:
    """A fitted pool with the temperature behind it; calls map outputs to log-probabilities `[M, C]`.

    `loss` is the NLL of the calibration rows, out of fold where labels fit the pool.
    """

    pool: Pool
    combine: Combine
    temperature: Temperature
    loss: float

    def __call__(self, rows: Outputs) -> Tensor:
        return self.temperature(self.combine(rows.logits.to(torch.float64), rows.weights))


def answer(pool: Pool, rows: Outputs) -> Answer:
    """The pool and its temperature fitted on calibration rows; ValueError where these do not do."""
    rule, logits = POOLS[pool], rows.logits.to(torch.float64)
    combine = rule.fit(logits, rows.y)
    pooled = _unseen(rule, logits, rows) if rule.labelled else combine(logits, rows.weights)
    temperature = Temperature(1.0) if rule.own else fit_temperature(pooled, rows.y)
    return Answer(pool, combine, temperature, float(nll(temperature(pooled), rows.y).mean()))


def calibrated(rows: Outputs) -> dict[Pool, float]:
    """NLL of the calibration rows after temperature, under each pool that an open arm chooses from."""
    return {pool: answer(pool, rows).loss for pool in CHOICE}


def best_pool(several: Sequence[Mapping[Pool, float]]) -> Pool:
    """The pool of least loss over the seeds; a single model has the same loss under all of them, to rounding."""
    losses = {pool: sum(one[pool] for one in several) for pool in CHOICE}
    best = min(CHOICE, key=lambda pool: losses[pool])
    return best if losses[best] < losses[CHOICE[0]] * (1 - 1e-9) else CHOICE[0]


def too_few(pool: Pool | None, members: int, targets: Tensor) -> int | None:
    """How many labels are wanted outside any fold, where `targets` `[N, ...]` have fewer there; else None."""
    if pool is None or not POOLS[pool].labelled:
        return None
    labels, wanted = (targets != IGNORED).reshape(len(targets), -1).sum(1), max(LEAST, 2 * members)
    if targets.ndim > 1:
        left = int(labels.sum() - torch.bincount(torch.arange(len(labels)) % FOLDS, weights=labels).max())
    else:
        left = int(labels.sum()) - math.ceil(int(labels.sum()) / FOLDS)
    return wanted if left < wanted else None


def _unseen(rule: Rule, logits: Tensor, rows: Outputs) -> Tensor:
    """Every row answered by a pool that was fitted on the other folds."""

    def fit(some: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        combine = rule.fit(some, y)
        return lambda others: combine(others, None)

    return out_of_fold(fit, logits, rows.y, folds=_folds(rows))


def _folds(rows: Outputs) -> Tensor:
    """The fold of each row: classes are dealt out evenly, and places of one example stay together."""
    if rows.example is not None:
        return rows.example % FOLDS
    folds = torch.empty_like(rows.y)
    folds[rows.y.argsort(stable=True)] = torch.arange(len(rows.y)) % FOLDS
    return folds


def _plain(rule: Combine) -> Rule:
    return Rule(lambda logits, y: rule)


def _weighted(weigh: Callable[[Tensor, Tensor], Tensor], *, labelled: bool) -> Rule:
    """A rule that weighs the members; no other weights come in."""

    def fit(logits: Tensor, y: Tensor) -> Combine:
        weights = weigh(logits, y)
        return lambda some, _: mean_probability(some, weights)

    return Rule(fit, labelled)


def _fitted(fit: Callable[[Tensor, Tensor], Callable[[Tensor], Tensor]], *, own: bool) -> Rule:
    def made(logits: Tensor, y: Tensor) -> Combine:
        pool = fit(logits, y)
        return lambda some, _: pool(some)

    return Rule(made, labelled=True, own=own)


def _counted(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """The vote with one more for every class, (K p + 1) / (K + C): a class without any has no finite NLL."""
    members, classes = len(logits), logits.shape[-1]
    return ((members * vote(logits, weights).exp() + 1) / (members + classes)).log()


POOLS: Mapping[Pool, Rule] = {
    "mean_probability": _plain(mean_probability),
    "mean_logit": _plain(mean_logit),
    "vote": _plain(_counted),
    "median_probability": _plain(median_probability),
    "trimmed_probability": _plain(trimmed_probability),
    "fit_log_linear": _fitted(fit_log_linear, own=True),
    "fit_linear": _fitted(fit_linear, own=False),
    "fit_extremised": _fitted(fit_extremised, own=True),
    "greedy": _weighted(greedy, labelled=True),
    # There are no rows of no particular kind in a recipe: a member's habits are read from the calibration rows.
    "zpe": _weighted(lambda logits, y: zpe(logits, logits), labelled=False),
}
"""Pools of a recipe by their names in the catalogue."""
