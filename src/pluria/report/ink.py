"""Figures as inline SVG that takes its colours from the page, so that light, dark and print each look right.

Colours are drawn as marks of their own (#0a0b01, ...) and become CSS variables (`var(--s1)`, ...) in the SVG; text
stays text and takes the page's font. The same figure gives the same bytes.
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04"
SERIES = ("#0a0c01", "#0a0c02", "#0a0c03", "#0a0c04", "#0a0c05", "#0a0c06")
MARKERS = ("o", "s", "^", "D", "v", "P")
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", PAPER: "var(--paper)"} | {
    colour: f"var(--s{i})" for i, colour in enumerate(SERIES, 1)
}
WIDTH = 360.0
"""Units of a figure's width: about a phone's pixels, so that text keeps its size there."""


@dataclass(frozen=True)
class Entry:
    """One line of a legend: a label and how it is drawn."""

    label: str
    colour: str
    marker: str = ""
    line: str = ""
    ringed: bool = False

    @property
    def variable(self) -> str:
        """The colour as the page knows it."""
        return VARIABLES[self.colour]


@dataclass(frozen=True)
class Plot:
    """One figure: inline SVG, its title, what it shows in a sentence, and its legend."""

    name: str
    title: str
    caption: str
    svg: str
    legend: tuple[Entry, ...] = ()


@contextmanager
def drawing() -> Iterator[None]:
    """The settings of every figure, whatever the user's own are; put back afterwards."""
    import matplotlib.style

    own = {
        "svg.fonttype": "none", "svg.hashsalt": "pluria", "text.parse_math": False, "axes.unicode_minus": True,
        "font.size": 10, "axes.labelsize": 10, "xtick.labelsize": 9, "ytick.labelsize": 9, "axes.titlesize": 10,
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED, "axes.titlecolor": INK,
        "xtick.color": MUTED, "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK,
        "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID,
        "grid.linewidth": 0.7, "axes.axisbelow": True, "axes.titlelocation": "left", "lines.markersize": 4.5,
        "lines.linewidth": 1.6, "axes.facecolor": "none", "figure.facecolor": "none",
    }  # fmt: skip
    with warnings.catch_warnings(), matplotlib.style.context(["default", own]):
        # The browser draws the text, in a font of its own.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        yield


def canvas(height: float) -> Figure:
    """An empty figure, `height` units high."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH / 72, height / 72), layout="constrained")


def inline(figure: Figure, name: str, alt: str) -> str:
    """The figure as SVG to stand in a page: ids of its own, no size, no styles, colours as variables, described."""
    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(stream, format="svg", transparent=True, metadata=nothing)
    root = ElementTree.fromstring(stream.getvalue())
    _tidy(root, name)
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": alt}
    return ElementTree.tostring(root, encoding="unicode")


def clean(text: str, longest: int = 40) -> str:
    """A name on one line, without control characters, cut where it is too long for a figure."""
    shown = "".join(" " if unicodedata.category(c)[0] == "C" or c in "\u2028\u2029" else c for c in text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def powers(axes: Axes, values: list[float], most: int = 9) -> None:
    """A logarithmic x axis to base 2 with plain numbers at powers of two."""
    import math

    low, high = math.floor(math.log2(min(values))), math.ceil(math.log2(max(values)))
    step = 1 + (high - low) // most
    ticks = [2.0**j for j in range(low, high + 1, step)]
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.set_xticks([], minor=True)
    axes.set_xlim(min(values) / 1.25, max(values) * 1.25)


def spread_out(axes: Axes, values: list[float], most: float = 4.0) -> None:
    """A logarithmic y axis with ticks at 1, 2, 5, where the values differ by more than a factor of `most`."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    above = [value for value in values if value > 0]
    if len(above) < len(values) or max(above) / min(above) <= most:
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _tidy(element: Any, name: str) -> None:
    """Namespaces, unused ids, styles and metadata go; ids that are used become the figure's own."""
    element.tag = element.tag.rpartition("}")[2]
    element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
    for key, value in list(element.attrib.items()):
        if key == "id" and (element.tag == "g" or not re.fullmatch(r"[mp][0-9a-f]{10}", value)):
            del element.attrib[key]
        elif key == "id":
            element.attrib[key] = f"{name}-{value}"
        elif key in ("href", "clip-path"):
            element.attrib[key] = value.replace("#", f"#{name}-", 1)
        elif key == "style":
            element.attrib[key] = _styled(value)
        elif key == "d":
            element.attrib[key] = " ".join(value.split())
    for child in list(element):
        if child.tag.rpartition("}")[2] in ("style", "metadata"):
            element.remove(child)
        else:
            _tidy(child, name)
    if element.tag != "text" and not (element.text or "").strip():
        element.text = None
    element.tail = None


def _styled(style: str) -> str:
    style = re.sub(r"font-family: [^;]*;? ?", "", style)
    return re.sub(r"#0a0[bc]0\d", lambda found: VARIABLES[found[0]], style)
