"""The tables of the README from the stored figures of both runs.

python experiments/ex-uno-pluria/tables.py experiments/ex-uno-pluria
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

POOLS = {"mean_probability": "prob.", "mean_logit": "logit"}
HEAD = (
    "arm",
    "NLL",
    "NLL after T",
    "Δ NLL after T (95 %)",
    "error",
    "error after T",
    "ECE",
    "pool",
    "forwards",
    "Mbit",
)


def line(cells: list[str]) -> str:
    """One line of Markdown."""
    return "| " + " | ".join(cells) + " |"


def cells(arm: dict[str, Any]) -> list[str]:
    """One arm; the interval is that of NLL after temperature minus the reference's."""
    spread, gap, cost = arm["spread"]["scaled"]["nll"], arm["difference"]["nll_scaled"], arm["cost"]
    deviation = f" ± {spread:.4f}" if len(arm["seeds"]) > 1 else ""
    return [
        arm["name"],
        f"{arm['scores']['nll']:.3f}",
        f"{arm['scaled']['nll']:.4f}{deviation}",
        f"{gap['estimate']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})",
        f"{arm['scores']['error']:.2%}",
        f"{arm['scaled']['error']:.2%}",
        f"{arm['scores']['ece']:.1%}",
        "" if cost["forwards"] == 1 else POOLS[arm["pool"]],
        str(cost["forwards"]),
        f"{min(cost['bits_planes'], cost['bits_members']) / 1e6:.2f}",
    ]


def table(figures: dict[str, Any]) -> None:
    """All arms."""
    print(line(list(HEAD)) + "\n" + line(["---"] * len(HEAD)))
    for arm in figures["arms"]:
        print(line(cells(arm)))


def diversity(figures: dict[str, Any]) -> None:
    """The ambiguity decomposition of every arm with several members: a, c and a - c, in nats before temperature."""
    print(line(["arm", "members' NLL (a)", "NLL of mean logits (c)", "ambiguity (a - c)", "disagreement"]))
    print(line(["---"] * 5))
    for arm in figures["arms"]:
        if arm["cost"]["forwards"] > 1:
            found = arm["diversity"]
            nats = [f"{found[name]:.3f}" for name in ("member_nll", "geometric_nll", "ambiguity")]
            print(line([arm["name"], *nats, f"{found['disagreement']:.1%}"]))


def growth(figures: dict[str, Any], names: list[str]) -> None:
    """NLL against the number of members: raw, and after temperature."""
    arms = [arm for arm in figures["arms"] if arm["name"] in names]
    print(line(["K", *(arm["name"] for arm in arms)]) + "\n" + line(["---"] * (len(arms) + 1)))
    sizes = sorted({point["k"] for arm in arms for point in arm["curve"]})
    for k in sizes:
        found = [next((p for p in arm["curve"] if p["k"] == k), None) for arm in arms]
        print(line([str(k), *("" if p is None else f"{p['nll']:.3f}, {p['nll_scaled']:.4f}" for p in found)]))


def main() -> None:
    folder = Path(sys.argv[1])
    for name in ("one", "several"):
        figures = json.loads((folder / name / "figures.json").read_text(encoding="utf-8"))
        about, rows = figures["environment"], figures["rows"]
        machine = f"{about['processor']}, {about['threads']} thread, torch {about['packages']['torch']}"
        print(f"\n{name}: {rows['figures']} images after {rows['calibration']} others; {machine}, {figures['date']}")
        print(f"Δ is against {figures['reference']}\n")
        table(figures)
        print()
        diversity(figures)
        if name == "one":
            print("\nNLL raw, after T, of the first K members\n")
            growth(figures, [a["name"] for a in figures["arms"] if a["name"].startswith("INT-5") and a["members"] > 4])


if __name__ == "__main__":
    main()
