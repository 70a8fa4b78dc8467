"""The figures of a report: NLL and ECE against members, bits and forwards; reliability, diversity, noise of layers.

What does not apply is left out: no curve where every arm is one model, no noise where nothing was rounded.
"""

from __future__ import annotations

from pluria.report.bars import diversity, layer_noise
from pluria.report.budgets import against_bits, against_forwards
from pluria.report.growth import against_members
from pluria.report.ink import Plot, drawing
from pluria.report.records import Figures
from pluria.report.reliability import reliability


def plots(figures: Figures) -> list[Plot]:
    """Every figure but the noise of layers, in reading order."""
    with drawing():
        found = [
            against_members(figures, "nll"),
            against_members(figures, "ece"),
            reliability(figures),
            against_bits(figures),
            against_forwards(figures),
            diversity(figures),
        ]
    return [plot for plot in found if plot is not None]


def noise_plot(figures: Figures) -> Plot | None:
    """Relative noise of each rounded tensor; None where nothing was rounded."""
    with drawing():
        return layer_noise(figures)
