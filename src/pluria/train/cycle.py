"""Cyclical learning rates, as shares of the highest, and the steps at which a cycle has a member to give.

    cosine    (1 + cos(pi t / L)) / 2                       t = steps since the cycle began, L = steps of a cycle
    triangle  1 - (1 - low) 2u for u <= 1/2, then back up   u = (t + 1) / L

A cosine cycle gives its member at the end, just before the restart; a triangle in the middle, where the rate is lowest.
L may be a fraction, so that M cycles fill any run of T steps: L = T / M; a member is ready at the next whole step.
With the schedule of `scheduler`, step number t + 1 is taken at the share of t.

Sources: Huang et al., ICLR 2017 (cosine); Garipov et al., NeurIPS 2018 (triangle); Zhang et al., ICLR 2020 (sampling at
the end of a cosine).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import torch

Shape = Literal["cosine", "triangle"]


@dataclass(frozen=True)
class Cycle:
    """Cycles of `steps` optimiser steps each. `low` is a triangle's lowest share of the highest rate.

    >>> cycle = Cycle(4, shape="triangle", low=0.1)
    >>> [round(cycle.share(t), 3) for t in range(4)]
    [0.55, 0.1, 0.55, 1.0]
    >>> [step for step in range(1, 9) if cycle.ends(step)]
    [2, 6]
    """

    steps: int | Fraction
    shape: Shape = "cosine"
    low: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.steps < math.inf:
            raise ValueError(f"a cycle has 1 step or more; got {self.steps}: fewer steps in the run than cycles?")
        if self.shape not in ("cosine", "triangle"):
            raise ValueError(f"a cycle is a 'cosine' or a 'triangle'; got {self.shape!r}")
        if self.shape == "triangle" and self.steps % 2:
            raise ValueError(f"a triangle reaches its lowest rate only in an even number of steps; got {self.steps}")
        if not 0 <= self.low <= 1:
            raise ValueError(f"the lowest rate is a share of the highest, in 0..1; got {self.low}")

    def share(self, taken: int) -> float:
        """The rate of the next step, after `taken` steps, over the highest rate."""
        t = float(taken % self.steps)
        if self.shape == "cosine":
            return self.low + (1 - self.low) * (1 + math.cos(math.pi * t / self.steps)) / 2
        u = (t + 1) / self.steps
        return 1 - (1 - self.low) * 2 * u if u <= 0.5 else self.low + (1 - self.low) * (2 * u - 1)

    def ends(self, step: int) -> bool:
        """Whether a member is ready after `step` steps."""
        if self.shape == "triangle":
            return step > 0 and step % self.steps == self.steps // 2
        return step > 0 and step % self.steps < 1

    def samples(self, step: int, *, share: float, every: int = 1) -> bool:
        """Whether step `step` lies in the last `share` of its cycle, and is one of each `every` from the end."""
        left = math.ceil(((step - 1) // self.steps + 1) * self.steps) - step
        return step > 0 and left < share * self.steps and left % every == 0

    def scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
        """A scheduler to be stepped after each optimiser step; the optimiser's own rate is the highest."""
        return torch.optim.lr_scheduler.LambdaLR(optimizer, self.share)


def cycles(steps: int, count: int) -> Cycle:
    """`count` cosine cycles that fill a run of `steps` steps; where they do not divide, some are a step longer.

    Raises ValueError for no cycle, or more cycles than steps.

    >>> cycle = cycles(10, 4)
    >>> [step for step in range(1, 11) if cycle.ends(step)]
    [3, 5, 8, 10]
    """
    if not 1 <= count <= steps:
        raise ValueError(f"a run of {steps} steps has 1 to {steps} cycles; got {count}")
    return Cycle(Fraction(steps, count) if steps % count else steps // count)
