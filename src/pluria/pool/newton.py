"""The minimum of a smooth convex function of a few numbers that must not be negative, by projected Newton steps.

    x  <-  max(0, x + t d)        d = - H^-1 g  on the free coordinates,  - g  on those held at zero

A coordinate is held where it is (nearly) zero and the gradient pushes it further down; t is halved until the value
falls enough. Source: Bertsekas, "Projected Newton methods for optimization problems with simple constraints", SIAM J.
Control and Optimization 1982.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Slopes = tuple[float, Tensor, Tensor]
"""Value, gradient `[K]` and Hessian `[K, K]` in float64 on the CPU."""

STEPS, HALVINGS = 200, 50
CLOSE = 1e-10
"""Largest projected gradient at which the search ends."""


def nonnegative_minimum(start: Tensor, slopes: Callable[[Tensor], Slopes]) -> Tensor:
    """The x >= 0, float64 `[K]`, of least value; `start` must be inside, with a finite value."""
    x, here = start, slopes(start)
    for _ in range(STEPS):
        distance = float((x - (x - here[1]).clamp_min(0)).abs().max())
        if distance <= CLOSE:
            break
        found = _search(x, here, _direction(x, here, min(distance, 1e-3)), slopes)
        if found is None:
            break
        x, here = found
    return x


def _direction(x: Tensor, here: Slopes, near: float) -> Tensor:
    _, gradient, hessian = here
    held = (x <= near) & (gradient > 0)
    free = (~held).nonzero()[:, 0]
    direction = -gradient
    # Copies of a member make the Hessian singular: the shortest step treats them alike.
    inverse = torch.linalg.pinv(hessian[free][:, free], rtol=1e-12, hermitian=True)
    direction[free] = -(inverse @ gradient[free])
    return direction


def _search(
    x: Tensor, here: Slopes, direction: Tensor, slopes: Callable[[Tensor], Slopes]
) -> tuple[Tensor, Slopes] | None:
    """The first point along the bent path at which the value has fallen enough; None where rounding hides it."""
    # The last steps gain less than the value's own rounding, and must not be refused for it.
    slack = 1e-14 * (1 + abs(here[0]))
    for halving in range(HALVINGS):
        candidate = (x + direction * 0.5**halving).clamp_min(0)
        there = slopes(candidate)
        if there[0] <= here[0] + 1e-4 * float(here[1] @ (candidate - x)) + slack:
            return candidate, there
    return None
