"""The arms of a run as flat rows of numbers, and what each column is called, means and looks like.

best   an arm is marked where its interval of the NLL difference to full precision lies below 0 and no arm with as many
       forwards or fewer has an interval wholly below its own; operations take the place of forwards where they differ
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Arm = Mapping[str, Any]
Figures = Mapping[str, Any]
Record = dict[str, Any]
NONE = "–"


@dataclass(frozen=True)
class Column:
    """One column of the table: `form` is filled with a record; a small `rank` stays on narrow terminals."""

    key: str
    group: str
    head: str
    form: str
    rank: int
    what: str

    @property
    def title(self) -> str:
        """Group and head in one line."""
        return f"{self.group} {self.head}".strip()

    def text(self, record: Record) -> str:
        """The cell of one arm, with a true minus sign; a dash where there is no number."""
        if record.get(self.key) is None:
            return NONE
        if self.key == "seconds":
            return seconds(record["seconds"])
        if self.key == "flops":
            return digits(record["flops"] / 1e9)
        form = self.form
        if self.key == "nll_scaled" and record["nll_scaled_sd"] is not None:
            form += " ±{nll_scaled_sd:.4f}"
        return form.format(**record).replace("-", "−")


POOLS = {
    "mean_probability": "prob.",
    "mean_logit": "logit",
    "median_probability": "median",
    "trimmed_probability": "trimmed",
    "fit_log_linear": "log-linear",
    "fit_linear": "linear",
    "fit_extremised": "extremised",
}
"""Short names of pools; the others are shown as they are called."""

COLUMNS: tuple[Column, ...] = (
    Column("nll", "NLL", "raw", "{nll:.4f}", 3, "negative log-likelihood in nats, as the network gives it"),
    Column("nll_scaled", "NLL", "after T", "{nll_scaled:.4f}", 0, "after temperature; ± deviation over seeds"),
    Column("difference", "ΔNLL", "after T", "{difference:+.4f}", 1, "after temperature, minus that of full precision"),
    Column("difference_low", "ΔNLL", "interval", "[{difference_low:+.4f}, {difference_high:+.4f}]", 4,
           "paired bootstrap over the rows"),
    Column("error", "error", "raw", "{error:.2%}", 2, "share of rows answered wrongly"),
    Column("error_scaled", "error", "after T", "{error_scaled:.2%}", 8, "the same with the pool that T stands behind"),
    Column("pool", "", "pool", "{pool}", 9, "how members become one answer before T, as asked or by calibration"),
    Column("forwards", "", "forwards", "{forwards:g}", 2, "forwards for each row; of a cascade, those asked"),
    Column("flops", "", "GFLOPs", "", 13, "billions of operations for each row, a multiply-add being two"),
    Column("weight_members", "bits/w.", "K·b", "{weight_members:.1f}", 6, "every member stored by itself"),
    Column("weight_planes", "bits/w.", "b+K", "{weight_planes:.1f}", 6, "floor codes and one bit plane a member"),
    Column("ece", "ECE", "raw", "{ece:.2%}", 7, "expected calibration error, 15 bins of equal width"),
    Column("ece_scaled", "ECE", "after T", "{ece_scaled:.2%}", 5, "after temperature"),
    Column("brier_scaled", "Brier", "after T", "{brier_scaled:.4f}", 10, "squared error of the probabilities"),
    Column("ambiguity", "members'", "ambiguity", "{ambiguity:.4f}", 9, "mean member NLL minus NLL of the mean logits"),
    Column("disagreement", "members'", "disagree", "{disagreement:.2%}", 8, "share of rows where two members differ"),
    Column("member_error", "members'", "error", "{member_error:.2%}", 12, "mean error of a member alone"),
    Column("weight_file", "", "file b/w.", "{weight_file:.1f}", 11, "what the file really takes"),
    Column("seconds", "", "seconds", "{seconds}", 11, "predicting all rows with all members, on this machine"),
)  # fmt: skip


def records(figures: Figures) -> list[Record]:
    """One flat row of numbers for each arm, in the order of the run; None where a number means nothing."""
    return [_record(arm, figures) for arm in figures["arms"]]


def best(figures: Figures) -> frozenset[str]:
    """Names of the arms that beat full precision and that nothing of the same or a smaller budget beats."""
    arms = [(arm, arm["difference"]["nll_scaled"]) for arm in figures["arms"]]
    budget = "flops" if by_operations(figures) else "forwards"
    return frozenset(
        arm["name"]
        for arm, gap in arms
        if gap["high"] < 0
        and all(other["high"] >= gap["low"] for one, other in arms if one["cost"][budget] <= arm["cost"][budget])
    )


def by_operations(figures: Figures) -> bool:
    """Whether forwards of the arms differ in their work, so that operations are the common budget; all are known."""
    costs = [arm["cost"] for arm in figures["arms"]]
    return all(cost["flops"] for cost in costs) and len({cost["flops"] / cost["forwards"] for cost in costs}) > 1


def reference_name(figures: Figures) -> str:
    """Name of the network in full precision that all is held against."""
    return str(figures["reference"])


def equal_bits(figures: Figures) -> frozenset[str]:
    """Names of the single models that are the best within some ensemble's bits."""
    return frozenset(name for found in figures.get("equal_bits", {}).values() for name in found.values())


def verdict(gap: Mapping[str, float]) -> str:
    """better or worse where the interval leaves out 0, else same."""
    return "better" if gap["high"] < 0 else "worse" if gap["low"] > 0 else "same"


def seconds(value: float) -> str:
    """Three digits that mean something, without an exponent."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3}f}"


def digits(value: float, count: int = 3) -> str:
    """So many digits that mean something, without an exponent.

    >>> digits(0.08251), digits(1316.2), digits(2.0)
    ('0.0825', '1316', '2.00')
    """
    shown = f"{value:.{count - 1}e}"
    return f"{value:.{max(0, count - 1 - int(shown.partition('e')[2]))}f}"


def _record(arm: Arm, figures: Figures) -> Record:
    cost, diverse, gap = arm["cost"], arm["diversity"], arm["difference"]["nll_scaled"]
    several = cost["forwards"] > 1
    reference = arm["name"] == reference_name(figures)
    found: Record = {
        "name": arm["name"],
        "role": "main" if arm["name"] == figures["main"] else "control" if arm["control"] else "drawn",
        "members": arm["members"],
        "pool": None if arm["cost"]["forwards"] == 1 else POOLS.get(arm["pool"], arm["pool"]),
        "seeds": len(arm["seeds"]),
        "temperature": arm["temperature"],
        "difference": None if reference else gap["estimate"],
        "difference_low": None if reference else gap["low"],
        "difference_high": None if reference else gap["high"],
        "forwards": cost["forwards"],
        "flops": cost["flops"] or None,
        "seconds": cost["seconds"],
    }
    for name, value in arm["scores"].items():
        found |= {name: value, f"{name}_scaled": arm["scaled"].get(name)}
    found["nll_scaled_sd"] = arm["spread"]["scaled"]["nll"] if len(arm["seeds"]) > 1 else None
    found |= {name: diverse[name] if several else None for name in ("ambiguity", "disagreement", "member_error")}
    return found | {
        f"weight_{name}": cost[f"bits_{name}"] / cost["parameters"] for name in ("members", "planes", "file")
    }
