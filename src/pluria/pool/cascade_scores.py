"""Scores of a cascade: how unsure the answer of the members asked so far is. Larger is less certain.

    max_probability   1 - max_c p_c
    entropy           - sum_c p_c log p_c
    energy            - sum_k w_k logsumexp_c z_kc / sum_k w_k        for logits
    settled           1 - (p_1 - p_2) A / R                  below 0 the members left cannot change the first choice
    movement          | lead_now - lead_before |             by the last stage, infinite after the first; the leads are
                      those of the present first choice over the best of the others

p is the answer so far, p_1 and p_2 its two largest probabilities, A the weight of the members asked, R of those left.
No member moves the mean probability of a class by more than its share, hence `settled`, which holds for that pool only.
Source of `energy`: Liu, Wang, Owens and Li, NeurIPS 2020.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.core import uncertainty
from pluria.pool.average import mean_logit, mean_probability

MEANS: dict[str, Callable[[Tensor, Tensor | None], Tensor]] = {
    "mean_logit": mean_logit,
    "mean_probability": mean_probability,
}
"""Pools that have an answer of some of the members as well as of all."""


@dataclass(frozen=True, eq=False)
class Seen:
    """Outputs `[k, n, C]` of the members asked so far, in their order, with weights `[k, n]`.

    `left` `[n]` is the weight of the members not asked yet; `before` says how many were asked before the last stage.
    """

    outputs: Tensor
    weights: Tensor
    left: Tensor
    before: int
    pool: str

    def answer(self, members: int | None = None) -> Tensor:
        """Log-probabilities `[n, C]` in float64 of the first `members`, or of all that were asked."""
        return MEANS[self.pool](self.outputs[:members].to(torch.float64), self.weights[:members])


Score = Callable[[Seen], Tensor]
"""What was asked so far to an uncertainty, float64 `[n]`."""


def _energy(seen: Seen) -> Tensor:
    free = seen.outputs.to(torch.float64).logsumexp(-1)
    return -torch.where(seen.weights > 0, seen.weights * free, 0.0).sum(0) / seen.weights.sum(0)


def _settled(seen: Seen) -> Tensor:
    two = seen.answer().exp().topk(2, -1).values
    return 1 - (two[:, 0] - two[:, 1]) * seen.weights.sum(0) / seen.left


def _movement(seen: Seen) -> Tensor:
    now = seen.answer().exp()
    if seen.before == 0:
        return torch.full_like(now[:, 0], torch.inf)
    choice = now.argmax(-1, keepdim=True)
    return (_lead(now, choice) - _lead(seen.answer(seen.before).exp(), choice)).abs()


def _lead(probabilities: Tensor, choice: Tensor) -> Tensor:
    """How far a class `[n, 1]` lies before the best of the others, `[n]`; behind it the lead is negative."""
    others = probabilities.scatter(-1, choice, -torch.inf).amax(-1)
    return probabilities.gather(-1, choice)[:, 0] - others


SCORES: dict[str, Score] = {
    "max_probability": lambda seen: uncertainty.max_probability(seen.answer()),
    "entropy": lambda seen: uncertainty.entropy(seen.answer()),
    "energy": _energy,
    "settled": _settled,
    "movement": _movement,
}
"""Scores by name."""
