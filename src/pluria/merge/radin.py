"""RADIN: soups chosen by outputs that are kept, without running a model but for the few best of them.

    loss of a soup  is taken for  judge( mean of its members' outputs )

A greedy search asks for the right-hand side alone. With a budget of B, the B subsets it found best are evaluated, and
the best soup of these is taken. Source: Menes and Risser-Maroix, "RADIN: souping on a budget", arXiv 2401.17790.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.core.reduce import mean
from pluria.merge.greedy import Loss, greedy_weights, soup, worth

Judge = Callable[[Tensor], float]
"""What outputs `[N, ...]` lose, to be small."""


def radin_soup(
    ensemble: Ensemble, outputs: Tensor, judge: Judge, *, loss: Loss | None = None, evaluations: int = 0
) -> dict[str, Tensor]:
    """The soup of an ensemble that its members' `outputs` `[K, N, ...]` (logits) on held-out rows speak for.

    judge         what the mean of some members' outputs loses
    loss          what a model loses, for the `evaluations` best subsets

    Raises ValueError for outputs of another number of members, and for evaluations without a loss.

    >>> from pluria.core.ensemble import stack
    >>> values = torch.tensor([[1.0], [-0.5], [3.0]])
    >>> radin_soup(stack([{"w": v} for v in values]), values[:, None], lambda outputs: outputs.abs().item())
    {'w': tensor([0.2500])}
    """
    if len(outputs) != len(ensemble):
        raise ValueError(f"{len(ensemble)} members need outputs [{len(ensemble)}, N, ...]; got {list(outputs.shape)}")
    if evaluations < 0 or (evaluations > 0) != (loss is not None):
        raise ValueError(f"evaluations and a loss go together; got {evaluations} and {loss}")
    tried: dict[tuple[float, ...], float] = {}

    def surrogate(chosen: Tensor) -> float:
        tried[tuple(chosen.tolist())] = judge(mean(outputs, ensemble.weights * chosen))
        return tried[tuple(chosen.tolist())]

    best = greedy_weights(len(ensemble), surrogate)
    if loss is None:
        return soup(ensemble, best)
    ranked = sorted(tried, key=lambda one: worth(tried[one]))[:evaluations]
    soups = [soup(ensemble, torch.tensor(one, dtype=torch.float64)) for one in ranked]
    return min(soups, key=lambda params: worth(loss(params)))
