"""A small table that stands on the page and in Markdown: arms down, figures across, and how to read them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pluria.report.records import NONE, Arm, Figures


@dataclass(frozen=True)
class Cell:
    """A figure as text, what stands beside it in small, and whether it is marked.

    `value` is what marks go by: rounded as the text is, so that figures that look alike are marked alike.
    """

    text: str = NONE
    beside: str = ""
    value: float | None = None
    marked: bool = False


@dataclass(frozen=True)
class Column:
    """Its group, its head, what stands beside each figure, and a cell for every arm."""

    group: str
    head: str
    beside: str
    cells: tuple[Cell, ...]

    @property
    def title(self) -> str:
        """All heads in one line."""
        return f"{self.group}: {self.head}" + (f" ({self.beside})" if self.beside else "")


@dataclass(frozen=True)
class Sheet:
    """One section: its id, title, sentences, the arms and the columns."""

    name: str
    title: str
    lead: str
    arms: tuple[Arm, ...]
    columns: tuple[Column, ...]
    main: str

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Groups of columns that stand side by side, with their sizes."""
        names = [column.group for column in self.columns]
        return [(name, names.count(name)) for name in dict.fromkeys(names)]

    @property
    def rows(self) -> list[tuple[str, bool, list[Cell]]]:
        """Name, whether it is the main arm, and cells of every arm."""
        across = zip(*(column.cells for column in self.columns), strict=True)
        return [
            (str(arm["name"]), arm["name"] == self.main, list(cells))
            for arm, cells in zip(self.arms, across, strict=True)
        ]


def sheet(figures: Figures, name: str, title: str, lead: str, arms: Sequence[Arm], columns: Sequence[Column]) -> Sheet:
    """A sheet of a run."""
    return Sheet(name, title, lead, tuple(arms), tuple(columns), figures["main"])


def extreme(cells: Sequence[Cell], choose: Callable[[list[float]], float]) -> tuple[Cell, ...]:
    """The same cells with the smallest or largest (`min`, `max`) marked; none where all are alike."""
    values = [cell.value for cell in cells if cell.value is not None]
    if len(set(values)) < 2:
        return tuple(cells)
    best = choose(values)
    return tuple(replace(cell, marked=cell.value == best) for cell in cells)


def spread(value: float, deviation: float | None, places: int, sign: str = "") -> str:
    """A mean with its deviation over seeds, where there are several.

    >>> spread(0.08351, 0.0012, 4), spread(8.351, None, 2, "%")
    ('0.0835 ±0.0012', '8.35%')
    """
    more = "" if deviation is None else f" ±{deviation:.{places}f}"
    return f"{value:.{places}f}{more}{sign}".replace("-", "−")


def as_markdown(found: Sheet) -> str:
    """The section in Markdown; a marked figure is bold."""
    heads = ["arm", *(quoted(column.title) for column in found.columns)]
    lines = [heads, ["---", *["---:"] * len(found.columns)]]
    for name, _, cells in found.rows:
        lines.append([quoted(name), *map(_cell, cells)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"## {found.title}\n\n{quoted(found.lead)}\n\n{table}\n"


def quoted(text: str) -> str:
    """Text that cannot end a cell or become HTML."""
    for mark, instead in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(mark, instead)
    return text


def _cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.marked else cell.text
    return f"{text} ({cell.beside})" if cell.beside else text
