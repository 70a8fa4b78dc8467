"""Candidates that nothing cheaper reaches, and the knee among them.

knee   the point of the front farthest below the straight line between its ends, cost on a logarithmic scale and both
       axes from 0 to 1; none where no point lies below that line. Source: Satopää et al., ICDCS workshops 2011
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pluria.search.judge import Candidate

Cost = Callable[[Candidate], float]


def front(candidates: Sequence[Candidate], cost: Cost) -> list[Candidate]:
    """Candidates in the order of their cost, each better than every one that costs as much or less."""
    found: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: (cost(one), one.loss, len(one.name))):
        if not found or one.loss < found[-1].loss:
            found.append(one)
    return found


def knee(line: Sequence[Candidate], cost: Cost) -> Candidate | None:
    """The knee of a front; None where none of its points lies below the line between its ends."""
    if len(line) < 3:
        return None
    x = [math.log(cost(one)) for one in line]
    y = [one.loss for one in line]
    depth = [1 - (a - x[0]) / (x[-1] - x[0]) - (b - y[-1]) / (y[0] - y[-1]) for a, b in zip(x, y, strict=True)]
    deepest = max(range(len(line)), key=depth.__getitem__)
    # The ends lie on the line, to rounding.
    return line[deepest] if depth[deepest] > 1e-12 else None
