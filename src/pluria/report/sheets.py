"""The tables beside that of all arms, each only where the run has its figures."""

from __future__ import annotations

from pluria.report.beyond import outside, shifted
from pluria.report.records import Figures
from pluria.report.sheet import Sheet
from pluria.report.together import together


def sheets(figures: Figures) -> list[Sheet]:
    """Shifted rows, outside rows, several labels at once."""
    return [found for found in (shifted(figures), outside(figures), together(figures)) if found is not None]
