"""A chain: steps that follow each other, such as temperatures of the members, a pool, and a temperature behind it.

    x_0 = members' outputs [K, N, ..., C]        x_i = step_i(x_(i-1))

A step is the name of a pool that fits nothing, or something fitted. The ensemble's mixing weights go to the step that
takes weights and has none of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from pluria.core.reduce import mean, median, trimmed
from pluria.pool.average import mean_bernoulli, mean_logit, mean_probability
from pluria.pool.cascade import Cascade
from pluria.pool.extremised import Extremised
from pluria.pool.gaussian import mean_gaussian
from pluria.pool.order import median_probability, trimmed_probability
from pluria.pool.quantiles import isotonic_quantiles, mean_quantiles, median_quantiles, sort_quantiles
from pluria.pool.vote import vote

POOLS: dict[str, Callable[..., Tensor]] = {
    pool.__name__: pool
    for pool in (
        *(mean, mean_bernoulli, mean_gaussian, mean_logit, mean_probability, mean_quantiles),
        *(median, median_probability, median_quantiles, trimmed, trimmed_probability, vote),
    )
}
"""Pools that fit nothing and take weights, by name."""

REPAIRS: dict[str, Callable[[Tensor], Tensor]] = {
    "isotonic_quantiles": isotonic_quantiles,
    "sort_quantiles": sort_quantiles,
}
"""What acts on a pooled answer and fits nothing, by name."""


@dataclass(frozen=True)
class Chain:
    """Steps in order: calls map `[K, N, ..., C]` (and the members' weights) to `[N, ..., C]`.

    >>> from pluria.pool.temperature import Temperature
    >>> import torch
    >>> Chain(("mean_logit", Temperature(0.5)))(torch.tensor([[[0.8, 0.2]], [[0.5, 0.5]]]).log()).exp()  # 0.8 : 0.2
    tensor([[0.8000, 0.2000]])
    """

    steps: tuple[Any, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        if not self.steps:
            raise ValueError("a chain needs a step: the name of a pool, or something fitted")
        for step in self.steps:
            if not callable(step) and step not in {*POOLS, *REPAIRS}:
                raise ValueError(f"{step!r} is no step; names are {', '.join(sorted({*POOLS, *REPAIRS}))}")

    def __call__(self, outputs: Tensor, weights: Tensor | None = None) -> Tensor:
        """The answer of the last step. `weights` `[K]` or `[K, N]`; None: equal."""
        for step in self.steps:
            if isinstance(step, Cascade | Extremised | Chain):
                outputs = step(outputs, weights)
            elif isinstance(step, str):
                outputs = POOLS[step](outputs, weights) if step in POOLS else REPAIRS[step](outputs)
            else:
                outputs = step(outputs)
        return outputs

    @property
    def cascade(self) -> Cascade | None:
        """The cascade that the chain begins with, which says what members need not be asked; None where it has none."""
        first = self.steps[0]
        return first.cascade if isinstance(first, Chain) else first if isinstance(first, Cascade) else None

    def averaged(self) -> Chain:
        """The same with the cascade's mean in place of the cascade: weights `[K, N]` say who was asked."""
        first, *others = self.steps
        if isinstance(first, Chain):
            return Chain((first.averaged(), *others))
        return Chain((first.pool if isinstance(first, Cascade) else first, *others))
