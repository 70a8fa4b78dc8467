"""Choosing the number system: the coarsest that stays close to full precision, or the best on validation data.

without labels  the fewest bits whose mean KL(full precision || pooled) over unlabelled inputs stays in tolerance
with labels     the smallest validation loss; ties go to fewer bits
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

C = TypeVar("C")


@dataclass(frozen=True)
class Choice:
    """What was chosen, and the value of every candidate that was evaluated, in the order of the candidates."""

    position: int
    values: tuple[float, ...]
    within: bool


def choose_format(
    candidates: Sequence[C], evaluate: Callable[[C], float], *, tolerance: float | None = None
) -> tuple[C, Choice]:
    """One of `candidates`, which come in order of rising cost (bits).

    evaluate   candidate -> number to be small: a divergence from full precision, or a validation loss
    tolerance  given: the first candidate whose value does not exceed it (the smallest value if none does, and
               `within` says so); None: the smallest value of all

    Raises ValueError without candidates or for a value that is not a number.
    """
    if not candidates:
        raise ValueError("no candidates to choose from")
    values: list[float] = []
    for candidate in candidates:
        value = float(evaluate(candidate))
        if value != value:
            raise ValueError(f"candidate {candidate!r} evaluates to NaN")
        values.append(value)
        if tolerance is not None and value <= tolerance:
            return candidate, Choice(len(values) - 1, tuple(values), True)
    best = min(range(len(values)), key=values.__getitem__)
    return candidates[best], Choice(best, tuple(values), tolerance is None)
