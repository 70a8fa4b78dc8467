"""What a search found in plain sentences, and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

Found = Mapping[str, Any]
TITLES = {
    "winner": "winner",
    "single": "single model with temperature",
    "views": "single model behind views",
    "int5": "plain INT-5 ensemble",
}


def sentences(found: Found) -> list[str]:
    """The winner, how it stands to each control on the figure rows, what was spent, and where the knees are."""
    figures, ledger = found["figures"], found["ledger"]
    winner, rows = figures["winner"], found["rows"]["figures"]
    raw = ", without temperature" if winner["temperature"] is None else ""
    lines = [
        f"{winner['name']}{raw}: NLL {winner['scores']['nll']:.4f}, error {winner['scores']['error']:.2%} on {rows} "
        f"rows that nothing was chosen on; {_price(winner)}."
    ]
    lines += [f"{_against(role, figures[role])}." for role in ("views", "int5") if role in figures]
    lines.append(_single(figures))
    lines += [_knee(axis, found["fronts"][axis]) for axis in ("bits", "forwards")]
    left = sum(look["left_out"] for look in found["looks"])
    kinds = f"{left} kind{'s were' if left > 1 else ' was'}"
    unseen = f" {kinds} left out, for the forwards did not reach." if left else ""
    lines.append(
        f"{ledger['forwards']:.1f} of {ledger['limit']:g} forwards were spent, on {found['kinds']} kinds.{unseen}"
    )
    return [line for line in lines if line]


def table(found: Found) -> Table:
    """The winner and its controls on the figure rows; differences are the winner's NLL minus theirs."""
    from rich import box
    from rich.table import Table

    made = Table("", "NLL", "ΔNLL", "error", "forwards", "Mbit", box=box.SIMPLE_HEAD)
    for column in made.columns[1:]:
        column.justify, column.no_wrap = "right", True
    for role, title in TITLES.items():
        if (one := found["figures"].get(role)) is None:
            continue
        gap = "" if role == "winner" else f"{one['difference']['estimate']:+.4f}".replace("-", "−")
        made.add_row(
            f"{title}: {one['name']}", f"{one['scores']['nll']:.4f}", gap,
            f"{one['scores']['error']:.2%}", f"{one['forwards']:g}", f"{one['bits'] / 1e6:.3f}",
        )  # fmt: skip
    return made


def _single(figures: Found) -> str:
    """The sentence about the single model: it wins wherever nothing surely beats it."""
    single, gap = figures["single"], figures["single"]["difference"]
    if figures["winner"]["name"] == single["name"]:
        return (
            "The temperature-scaled single model wins: no ensemble within the budgets did better on calibration rows."
        )
    if gap["low"] > 0:
        return f"The temperature-scaled single model wins: on the figure rows it beats the ensemble ({_band(gap)})."
    if gap["high"] >= 0:
        return (
            "The temperature-scaled single model wins, for it is cheaper: on the figure rows the ensemble cannot be "
            f"told apart from it ({_band(gap)})."
        )
    return f"It beats the temperature-scaled single model ({_band(gap)})."


def _against(role: str, one: Found) -> str:
    gap = one["difference"]
    verdict = "beats" if gap["high"] < 0 else "stays behind" if gap["low"] > 0 else "cannot be told apart from"
    what = "the single model behind views" if role == "views" else "the plain INT-5 ensemble"
    return f"It {verdict} {what} at {_forwards(one)} ({_band(gap)})"


def _band(gap: Found) -> str:
    return f"NLL {gap['estimate']:+.4f}, {gap['low']:+.4f} to {gap['high']:+.4f}".replace("-", "−")


def _price(one: Found) -> str:
    return f"{_forwards(one)} for each example, {one['bits'] / 1e6:.3f} Mbit in all"


def _forwards(one: Found) -> str:
    return "one forward" if one["forwards"] == 1 else f"{one['forwards']:.3g} forwards"


def _knee(axis: str, line: Found) -> str:
    knee = line["knee"]
    if knee is None:
        return ""
    amount = f"{knee['bits'] / 1e6:.3f} Mbit" if axis == "bits" else _forwards(knee)
    return f"The knee against {axis} is {knee['name']} at {amount}, NLL {knee['nll']:.4f} on calibration rows."
