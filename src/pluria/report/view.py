"""What the page shows, worked out of the figures: tiles, rows of the table, examples, the ways to repeat the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from pluria.report.records import (
    COLUMNS,
    Column,
    Figures,
    Record,
    best,
    by_operations,
    equal_bits,
    records,
    reference_name,
    seconds,
    verdict,
)
from pluria.report.series import full, named
from pluria.report.work import amounts, several

PNG = "data:image/png;base64,"


@dataclass(frozen=True)
class Tile:
    """One number at the head of the page: what was gained, or what it cost."""

    label: str
    value: str
    note: str
    mood: str = ""


@dataclass(frozen=True)
class Whisker:
    """An interval drawn in a cell: percentages of its width; ends beyond the scale are cut."""

    zero: float
    low: float
    middle: float
    high: float
    cut: bool
    mood: str


@dataclass(frozen=True)
class Row:
    """One arm of the table."""

    name: str
    main: bool
    tags: tuple[str, ...]
    cells: tuple[tuple[str, str], ...]
    whisker: Whisker | None


def headline(figures: Figures) -> tuple[str, str]:
    """The sentence of gain and cost, and what follows it."""
    first, dot, rest = figures["headline"].partition(". ")
    return first + dot.strip(), rest


def tiles(figures: Figures) -> list[Tile]:
    """Gains, each beside full precision, then costs."""
    main, reference = named(figures, figures["main"]), full(figures)
    cost, gap = main["cost"], main["difference"]["nll_scaled"]
    band = f"{_signed(gap['estimate'])} [{_signed(gap['low'])},\u00a0{_signed(gap['high'])}]"
    return [
        Tile("NLL after temperature", _pair(reference, main, "scaled", "nll", "{:.4f}"), band, verdict(gap)),
        Tile("NLL before temperature", _pair(reference, main, "scores", "nll", "{:.4f}"), "as the network gives it"),
        Tile("ECE after temperature", _pair(reference, main, "scaled", "ece", "{:.1%}"),
             f"before: {_pair(reference, main, 'scores', 'ece', '{:.1%}')}"),
        Tile("Error", _pair(reference, main, "scores", "error", "{:.2%}"), f"{figures['rows']['figures']} rows"),
        _work(reference["cost"], cost, by_operations(figures)),
        _memory(reference["cost"], cost, several(figures)),
    ]  # fmt: skip


def heads() -> tuple[list[tuple[str, int]], list[Column]]:
    """Groups of columns with their sizes, and all columns."""
    return [(group, len(list(some))) for group, some in groupby(COLUMNS, key=lambda column: column.group)], [*COLUMNS]


def bodies(figures: Figures) -> list[tuple[str, list[Row]]]:
    """Rows of the table: controls, then drawn arms."""
    found: dict[str, list[Row]] = {"Controls": [], "Drawn arms": []}
    shown, equal, scale = best(figures), equal_bits(figures), _scale(figures)
    for record in records(figures):
        main, name = record["role"] == "main", record["name"]
        tags = (("main",) if main else ()) + (("best at equal bits",) if name in equal else ())
        cells = tuple((column.text(record), _mood(column, record, shown)) for column in COLUMNS)
        row = Row(name.replace(" × ", " ×\u00a0"), main, tags, cells, _whisker(record, scale))
        found["Controls" if record["role"] == "control" else "Drawn arms"].append(row)
    return [(title, rows) for title, rows in found.items() if rows]


def within_bits(figures: Figures) -> list[dict[str, Any]]:
    """Each ensemble beside the best single model within its bits, under either accounting."""
    found = []
    for name, singles in figures.get("equal_bits", {}).items():
        entry: dict[str, Any] = {"name": name, "nll": _nll(figures, name)}
        for accounting in ("bits_members", "bits_planes"):
            single = singles.get(accounting)
            entry[accounting] = single and {"name": single, "nll": _nll(figures, single)}
        found.append(entry)
    return found


def examples(figures: Figures) -> list[dict[str, Any]]:
    """The examples members disagree on; a picture that is no PNG inside the page is left out."""
    found = []
    for one in figures.get("disagreed") or []:
        picture, total = one.get("picture"), sum(count for _, count in one["votes"]) or 1
        others = iter(range(len(one["votes"])))
        shares = [
            {"name": name, "count": count, "share": 100 * count / total,
             "kind": "own" if name == one["label"] else f"v{next(others) % 3}"}
            for name, count in one["votes"]
        ]  # fmt: skip
        kept = picture if isinstance(picture, str) and picture.startswith(PNG) else None
        found.append({**one, "picture": kept, "shares": shares, "right": one["answer"] == one["label"]})
    return found


def recipe_text(figures: Figures) -> str:
    """The recipe as YAML."""
    import yaml

    return str(yaml.safe_dump(figures["recipe"], sort_keys=False, allow_unicode=True, width=100))


def machine(figures: Figures) -> list[tuple[str, str]]:
    """The environment, line by line."""
    held = dict(figures.get("environment") or {})
    packages = held.pop("packages", None) or {}
    lines = [(name, "none" if value is None else str(value)) for name, value in held.items()]
    return lines + [(name, str(value)) for name, value in packages.items()]


def _work(before: Mapping[str, Any], after: Mapping[str, Any], operations: bool) -> Tile:
    """Forwards; operations where forwards differ in their work."""
    forwards = f"{before['forwards']} → {after['forwards']}"
    took = f"{seconds(after['seconds'])} s for all rows, here"
    if operations:
        value, unit = amounts([before["flops"], after["flops"]], "FLOPs")
        return Tile(f"{unit} for each row", value, f"{forwards} forwards; {took}")
    return Tile("Forwards for each row", forwards, took)


def _memory(before: Mapping[str, Any], after: Mapping[str, Any], several: bool) -> Tile:
    """Bits for each weight; bytes in all where there are several networks."""
    # Codes after feedback have no planes, and a single member gains nothing by them.
    shared = after["bits_planes"] < after["bits_members"]
    least = "bits_planes" if shared else "bits_members"
    if several:
        value, unit = amounts([before["bits_members"] / 8, after[least] / 8], "B")
        one, other = (" ".join(amounts([after[f"bits_{name}"] / 8], "B")) for name in ("members", "file"))
        held = f"as bit planes; {one} member by member" if shared else "member by member"
        return Tile(f"Memory, {unit}", value, f"{held}, {other} in the file")
    per = {name: after[f"bits_{name}"] / after["parameters"] for name in ("members", "file")}
    held = f"as bit planes; {per['members']:.1f} member by member" if shared else "member by member"
    return Tile(
        "Bits for each weight",
        f"{before['bits_members'] / before['parameters']:.1f} → {after[least] / after['parameters']:.1f}",
        f"{held}, {per['file']:.1f} in the file",
    )


def _pair(before: Mapping[str, Any], after: Mapping[str, Any], part: str, score: str, form: str) -> str:
    return f"{form.format(before[part][score])} → {form.format(after[part][score])}"


def _nll(figures: Figures, name: str) -> str:
    return f"{named(figures, name)['scaled']['nll']:.4f}"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _gap(record: Record) -> dict[str, float]:
    return {"low": record["difference_low"], "high": record["difference_high"]}


def _mood(column: Column, record: Record, shown: frozenset[str]) -> str:
    """The class of a cell: a difference that is sure, or the mark of the best."""
    if column.key == "nll_scaled" and record["name"] in shown:
        return "best"
    if column.key in ("difference", "difference_low") and record["difference"] is not None:
        return verdict(_gap(record))
    return ""


def _scale(figures: Figures) -> tuple[float, float]:
    """Ends of the scale of differences: every gain, and losses as far as the drawn arms go."""
    gaps = [
        (arm["control"], arm["difference"]["nll_scaled"])
        for arm in figures["arms"]
        if arm["name"] != reference_name(figures)
    ]
    low = min([0.0, *(gap["low"] for _, gap in gaps)])
    high = max([0.0, *(gap["high"] for control, gap in gaps if not control)])
    room = 0.08 * (high - low) or 1.0
    return low - room, max(high, -0.5 * low) + room


def _whisker(record: Record, scale: tuple[float, float]) -> Whisker | None:
    if record["difference"] is None:
        return None
    low, high = scale

    def place(value: float) -> float:
        return round(100 * min(max((value - low) / (high - low), 0.0), 1.0), 2)

    return Whisker(
        zero=place(0.0),
        low=place(record["difference_low"]),
        middle=place(record["difference"]),
        high=place(record["difference_high"]),
        cut=record["difference_high"] > high,
        mood=verdict(_gap(record)),
    )
