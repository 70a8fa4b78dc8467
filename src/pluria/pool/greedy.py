"""Greedy selection of members with replacement: a weight for each member, by how often it was taken.

    start with the best members; then, round after round, take the member whose addition gives the pooled
    probabilities the least loss; of all rounds keep the one with the least loss;  w_k = times taken / all taken

A member may be taken again, so the counts become weights. With bags, each bag sees a random part of the members and the
weights are the bags' mean, which protects against members that are good by chance. Source: Caruana, Niculescu-Mizil,
Crew and Ksikes, "Ensemble selection from libraries of models", ICML 2004.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pluria.numbers.key import ROUNDING, Key, tensor_id
from pluria.numbers.philox import words
from pluria.pool.rows import at_targets, fitting_rows

BAGS = "\0bags"
"""Reserved name of the random addresses, so that no tensor shares them."""

Loss = Callable[[Tensor, Tensor], Tensor | float]
Judge = Callable[[Tensor], float]


def greedy(
    log_probs: Tensor,
    y: Tensor,
    *,
    loss: Loss | None = None,
    rounds: int = 100,
    start: int = 1,
    bags: int = 1,
    share: float = 0.5,
    ignore_index: int = -100,
    key: Key | int = 0,
) -> Tensor:
    """Mixing weights `[K]`, float64, of sum one, for members' `log_probs` `[K, N, ..., C]` at classes `y` `[N, ...]`.

    loss     (pooled log-probabilities [M, C], targets [M]) -> number to be small; None: mean NLL
    rounds   how many are taken after the start
    start    how many of the best members are taken first
    bags     more than one: as many selections, each among `share` of the members, drawn with `key`

    The weights fit `Ensemble.reweight` and every pool. Of equal losses the lower member, and the earlier round, is
    taken. Fit it on rows that no member was trained on. Rows whose target is `ignore_index` do not count.
    Refused: what `fit_linear` refuses, options out of range, and a loss that is NaN.
    """
    rows, targets = fitting_rows(log_probs, y, ignore_index)
    if rounds < 0 or bags < 1 or not 1 <= start <= len(rows) or not 0 < share <= 1:
        raise ValueError(
            f"rounds >= 0, bags >= 1, 1 <= start <= {len(rows)} members and 0 < share <= 1 are wanted; "
            f"got {rounds}, {bags}, {start} and {share}"
        )
    if loss is None:
        probs, judge = at_targets(rows, targets).exp()[..., None], _nll
    else:
        probs, judge = rows.exp(), lambda pooled: float(loss(pooled.log(), targets))
    total = torch.zeros(len(rows), dtype=torch.float64)
    for bag in _bags(len(rows), bags, max(start, math.ceil(share * len(rows))), key):
        counts = _select(probs[bag], judge, start, rounds)
        total[bag] += counts / counts.sum()
    return total / bags


def _select(probs: Tensor, judge: Judge, start: int, rounds: int) -> Tensor:
    """How often each member is taken, float64 `[K]`, for probabilities `[K, M, C]`."""
    losses = [_sound(judge(own)) for own in probs]
    taken = sorted(range(len(probs)), key=losses.__getitem__)[:start]
    pooled = probs[taken].sum(0)
    best, length = judge(pooled / start), start
    for _ in range(rounds):
        losses = [_sound(judge((pooled + own) / (len(taken) + 1))) for own in probs]
        taken.append(min(range(len(probs)), key=losses.__getitem__))
        pooled = pooled + probs[taken[-1]]
        if losses[taken[-1]] < best:
            best, length = losses[taken[-1]], len(taken)
    return torch.bincount(torch.tensor(taken[:length]), minlength=len(probs)).to(torch.float64)


def _bags(members: int, bags: int, size: int, key: Key | int) -> list[Tensor]:
    """The members of each bag, in order; one bag holds them all."""
    if bags == 1:
        return [torch.arange(members)]
    key = key if isinstance(key, Key) else Key(key)
    place = tensor_id(BAGS)
    drawn = [words(key, tensor=place, group=bag, stream=ROUNDING, start=0, stop=members) for bag in range(bags)]
    return [one.argsort(stable=True)[:size].sort().values for one in drawn]


def _nll(pooled: Tensor) -> float:
    return -float(pooled.log().mean())


def _sound(value: float) -> float:
    if math.isnan(value):
        raise ValueError("the loss is NaN; give one that is a number wherever probabilities may be zero")
    return value
