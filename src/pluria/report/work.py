"""What the axes of budgets measure: forwards or operations, bits for each weight or bytes in all.

Forwards are no common budget of networks that differ in size, and bits for each weight are none of several networks.
"""

from __future__ import annotations

from itertools import accumulate

from pluria.report.records import Arm, Figures, by_operations, digits

PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def several(figures: Figures) -> bool:
    """Whether the run has more than one network."""
    return len({name for arm in figures["arms"] for name in arm["networks"]}) > 1


def spent(arm: Arm, figures: Figures) -> list[float]:
    """Forwards for each row of the first K members at every K of the arm's curve; operations where they differ."""
    sizes = [int(point["k"]) for point in arm["curve"]]
    if not by_operations(figures):
        return [float(size) for size in sizes]
    alone = {one["networks"][0]: one["cost"] for one in figures["arms"] if len(one["networks"]) == 1}
    each = [alone[name]["flops"] / alone[name]["forwards"] for name in arm["networks"] for _ in range(arm["members"])]
    after = list(accumulate(each))
    return [after[size - 1] for size in sizes]


def memory(arm: Arm, accounting: str, figures: Figures) -> float:
    """Bits for each weight (`members`, `planes` or `file`); bytes in all where there are several networks."""
    bits = float(arm["cost"][f"bits_{accounting}"])
    return bits / 8 if several(figures) else bits / float(arm["cost"]["parameters"])


def unit(values: list[float], word: str) -> tuple[float, str]:
    """What to divide by for numbers below 1000, and the unit with its prefix.

    >>> unit([82.5e6, 1.3e9], "FLOPs")
    (1000000000.0, 'GFLOPs')
    """
    return next(((size, f"{sign}{word}") for size, sign in PREFIXES if max(values) >= size), (1.0, word))


def amounts(values: list[float], word: str) -> tuple[str, str]:
    """One amount after the other, and their unit.

    >>> amounts([81.6e6, 489.5e6], "FLOPs")
    ('81.6 → 490', 'MFLOPs')
    """
    size, name = unit(values, word)
    return " → ".join(digits(value / size) for value in values), name
