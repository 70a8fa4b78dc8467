"""The pools that an arm of a recipe may name, each with the temperature that stands behind it.

plain      a rule without parameters; the temperature is fitted on its answers
weights    a weight for each member by labelled rows, then the mean of probabilities; the temperature is fitted on the
           answers of fits that have not seen the row
asked      a cascade: members are asked one after the other, no more than an example needs; the temperature is fitted on
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
    Cascade,
    Chain,
    Linear,
    Spent,
    Temperature,
    fit_cascade,
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
Step = str | Callable[[Tensor], Tensor]
"""The name of a pool without parameters, or a fitted one: members' logits [K, M, C] to log-probabilities [M, C]."""

FOLDS = 5
CASCADE: Pool = "fit_cascade"
CHOICE: tuple[Pool, ...] = ("mean_probability", "mean_logit")
"""An arm that names no pool takes the better of these; the first also stands before the temperature."""


@dataclass(frozen=True)
class Rule:
    """How a pool comes from logits `[K, M, C]` and targets `[M]`, whether labels fit it, and its own temperature."""

    fit: Callable[[Tensor, Tensor], Step]
    labelled: bool = False
    own: bool = False


@dataclass(frozen=True)
class Answer:
    """A fitted pool with the temperature behind it; calls map outputs to log-probabilities `[M, C]`.

    `loss` is the NLL of the calibration rows, out of fold where labels fit the pool.
    """

    pool: Pool
    step: Step
    temperature: Temperature
    loss: float

    def __call__(self, rows: Outputs) -> Tensor:
        return self.temperature(_taken(self.step, rows.logits.to(torch.float64), rows.weights))

    def asked(self, logits: Tensor) -> Spent | None:
        """What a cascade asks of members with these logits `[K, M, C]`; None for pools that ask all."""
        step = self.step
        return step.spent(step.asked(logits)) if isinstance(step, Cascade) else None

    def chain(self) -> Chain | None:
        """The same as a chain that a file can hold; None for the vote, which a chain takes without the vote more."""
        return None if self.pool == "vote" else Chain((self.step, self.temperature))


def answer(pool: Pool, rows: Outputs) -> Answer:
    """The pool and its temperature fitted on calibration rows; ValueError where these do not do."""
    rule, logits = POOLS[pool], rows.logits.to(torch.float64)
    if pool == CASCADE and rows.example is not None:
        raise ValueError("a cascade asks for whole examples, and here every place of one has an answer")
    step = rule.fit(logits, rows.y)
    pooled = _unseen(rule, logits, rows) if rule.labelled else _taken(step, logits, rows.weights)
    temperature = Temperature(1.0) if rule.own else fit_temperature(pooled, rows.y)
    return Answer(pool, step, temperature, float(nll(temperature(pooled), rows.y).mean()))


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


def _taken(step: Step, logits: Tensor, weights: Tensor | None) -> Tensor:
    if isinstance(step, Cascade):
        return step(logits, weights)
    return PLAIN[step](logits, weights) if isinstance(step, str) else step(logits)


def _unseen(rule: Rule, logits: Tensor, rows: Outputs) -> Tensor:
    """Every row answered by a pool that was fitted on the other folds."""

    def fit(some: Tensor, y: Tensor) -> Callable[[Tensor], Tensor]:
        step = rule.fit(some, y)
        return lambda others: _taken(step, others, None)

    return out_of_fold(fit, logits, rows.y, folds=_folds(rows))


def _folds(rows: Outputs) -> Tensor:
    """The fold of each row: classes are dealt out evenly, and places of one example stay together."""
    if rows.example is not None:
        return rows.example % FOLDS
    folds = torch.empty_like(rows.y)
    folds[rows.y.argsort(stable=True)] = torch.arange(len(rows.y)) % FOLDS
    return folds


def _weighted(weights: Tensor) -> Linear:
    return Linear(tuple(weights.tolist()))


def _counted(logits: Tensor, weights: Tensor | None = None) -> Tensor:
    """The vote with one more for every class, (K p + 1) / (K + C): a class without any has no finite NLL."""
    members, classes = len(logits), logits.shape[-1]
    return ((members * vote(logits, weights).exp() + 1) / (members + classes)).log()


PLAIN: Mapping[Pool, Callable[..., Tensor]] = {
    "mean_probability": mean_probability,
    "mean_logit": mean_logit,
    "vote": _counted,
    "median_probability": median_probability,
    "trimmed_probability": trimmed_probability,
}
"""Pools without parameters, which take the members' weights."""

POOLS: Mapping[Pool, Rule] = {
    **{name: Rule(lambda logits, y, name=name: name) for name in PLAIN},  # type: ignore[misc]
    "fit_log_linear": Rule(fit_log_linear, labelled=True, own=True),
    "fit_linear": Rule(fit_linear, labelled=True),
    "fit_extremised": Rule(fit_extremised, labelled=True, own=True),
    CASCADE: Rule(fit_cascade, labelled=True),
    "greedy": Rule(lambda logits, y: _weighted(greedy(logits, y)), labelled=True),
    # There are no rows of no particular kind in a recipe: a member's habits are read from the calibration rows.
    "zpe": Rule(lambda logits, y: _weighted(zpe(logits, logits))),
}
"""Pools of a recipe by their names in the catalogue."""
