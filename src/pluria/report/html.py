"""A run as one HTML file that needs nothing else: no script, no font, no picture from anywhere.

Order: what was gained at which cost, warnings, every arm and control, further tables, figures, examples, noise, how to
repeat it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pluria.report import view
from pluria.report.bars import compensates
from pluria.report.plots import noise_plot, plots
from pluria.report.records import Figures
from pluria.report.sheets import sheets
from pluria.report.tables import legend
from pluria.store.atomic import replacing

OPTIONAL: dict[str, Any] = {
    "date": "", "command": "", "notes": [], "warnings": [], "classes": [], "environment": {}, "equal_bits": {},
    "noise": [], "left_alone": [], "disagreed": [],
}  # fmt: skip
"""What a run may lack."""


def write_report(figures: Figures, path: str | Path) -> None:
    """Write the report; the same figures give the same bytes. OSError where the file cannot be written.

    Every text of the figures is escaped, and pictures are taken only as PNG inside the figures.
    """
    place = Path(path)
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as file:
        file.write(page(figures).encode())


def page(figures: Figures) -> str:
    """The report as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("pluria.report", "templates")
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    style = loader.get_source(made, "style.css")[0]
    return made.get_template("page.html").render(_shown({**OPTIONAL, **figures}), style=Markup(style), svg=Markup)


def _shown(figures: Figures) -> dict[str, Any]:
    groups, columns = view.heads()
    gain, rest = view.headline(figures)
    return {
        "figures": figures,
        "gain": gain,
        "rest": rest,
        "tiles": view.tiles(figures),
        "groups": groups,
        "columns": columns,
        "bodies": view.bodies(figures),
        "legend": legend(figures),
        "within": view.within_bits(figures),
        "sheets": sheets(figures),
        "plots": plots(figures),
        "noise": noise_plot(figures),
        "compensates": compensates(figures),
        "examples": view.examples(figures),
        "recipe": view.recipe_text(figures),
        "machine": view.machine(figures),
        "seeds": sorted({seed for arm in figures["arms"] for seed in arm["seeds"]}),
    }
