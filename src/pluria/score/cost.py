"""What an ensemble costs, and the size of the deep ensemble that does as well."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Literal


@dataclass(frozen=True)
class Cost:
    """The budgets of an ensemble. `ValueError` for a figure that is negative or not finite.

    forwards          member forward passes per example; a cascade has a mean, so it need not be whole
    bits_literature   bits of all members as the literature counts them: sum over weights of K times b
    bits_stored       bits the file takes, shared tensors counted once
    seconds           wall clock of the prediction that gave the figures
    backward_passes   training: backward passes over single examples or batches, as the caller counts them
    """

    forwards: float = 1.0
    bits_literature: int = 0
    bits_stored: int = 0
    seconds: float = 0.0
    backward_passes: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{field.name} must be finite and not negative, not {value}")

    def __add__(self, other: "Cost") -> "Cost":
        """Both, one after the other: all budgets add up."""
        return Cost(
            self.forwards + other.forwards,
            self.bits_literature + other.bits_literature,
            self.bits_stored + other.bits_stored,
            self.seconds + other.seconds,
            self.backward_passes + other.backward_passes,
        )


@dataclass(frozen=True)
class Equivalent:
    """A deep-ensemble equivalent: `size` members, and whether the value lies beyond an end of the reference curve.

    `clamped` "below": worse than one member, `size` is 1. "above": better than all M, `size` is M and a lower bound.
    """

    size: float
    clamped: Literal["no", "below", "above"] = "no"


def deep_ensemble_equivalent(
    curve: Sequence[float], value: float, *, better: Literal["lower", "higher"] = "lower"
) -> Equivalent:
    """The smallest size, linearly interpolated, at which deep ensembles reach `value`.

    `curve` holds the mean NLL of deep ensembles of sizes 1..M (after temperature scaling, of the same architecture and
    training); `better="higher"` takes log-likelihoods. Refused with `ValueError`: an empty curve, values that are not
    finite, another `better`. Source: Ashukha et al., ICLR 2020.

    >>> deep_ensemble_equivalent([0.75, 0.50, 0.25], 0.375)
    Equivalent(size=2.5, clamped='no')
    >>> deep_ensemble_equivalent([0.75, 0.50, 0.25], 0.125)
    Equivalent(size=3.0, clamped='above')
    """
    if better not in ("lower", "higher"):
        raise ValueError(f"better must be 'lower' or 'higher', not {better!r}")
    sign = 1.0 if better == "lower" else -1.0
    losses, goal = [sign * float(loss) for loss in curve], sign * value
    if not losses or not all(map(math.isfinite, [*losses, goal])):
        raise ValueError("the reference curve needs at least one size, and all values must be finite")
    if goal >= losses[0]:
        return Equivalent(1.0, "no" if goal == losses[0] else "below")
    for size, (before, after) in enumerate(pairwise(losses), start=1):
        if after <= goal:
            return Equivalent(size + (before - goal) / (before - after))
    return Equivalent(float(len(losses)), "above")
