"""The tables of README.md from the stored figures: python experiments/cascade/tables.py"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Figures = dict[str, Any]
NAMES = ("coverage at 2 % risk", "coverage at 0.5 % risk", "risk at 70 % coverage")


def tables(found: Figures) -> str:
    """All tables, as Markdown."""

    def of(kind: str) -> Figures:
        return {name.removeprefix(f"{kind}: "): one for name, one in found.items() if name.startswith(f"{kind}: ")}

    parts = [bars(of("compared"))]
    parts += [equals(name, rows) for name, rows in of("equal").items()]
    parts += [decided(name, one) for name, one in of("decisions").items()]
    return "\n\n".join(parts)


def bars(every: Figures) -> str:
    """Cascades that are asked to keep a share of the gain."""
    rows = []
    for name, seeds in every.items():
        whole = over([one["whole"]["nll"] for one in seeds])
        for at, cascade in enumerate(seeds[0]["cascades"]):
            own = [one["cascades"][at] for one in seeds]
            rows.append([
                name, level(own), cascade["order"],
                over([one["first"]["nll"] for one in own]), whole, over([one["nll"] for one in own]),
                interval(cascade["whole minus first"]),
                share([one["kept over first"] for one in own]), share([one["kept over best single"] for one in own]),
                over([one["share of forwards"] for one in own], 3), over([one["share of MACs"] for one in own], 3),
                over([100 * one["error"] for one in own], 2), over([100 * one["whole"]["error"] for one in seeds], 2),
            ])  # fmt: skip
    heads = (
        "members", "asked to keep", "order", "first", "all", "cascade", "all minus first (95 %)", "kept",
        "kept of the gain over the best member", "forwards", "MACs", "error, %", "error of all, %",
    )  # fmt: skip
    return f"### Keeping the gain in NLL\n\n{table(heads, rows)}"


def equals(name: str, rows: Sequence[Figures]) -> str:
    """The first k members against a cascade over all that was as good on the images of the fit."""
    task = "error" if name.endswith("error") else "nll"
    lines = []
    for row in rows:
        held = row.get("cascade")
        own = f"{row[task]:.2%}" if task == "error" else f"{row[task]:.4f}"
        if held is None:
            lines.append([str(row["k"]), own, f"{row['forwards']:.2f}", f"{row['MMACs']:.0f}", "none", "", "", "", ""])
            continue
        made = f"{held[task]:.2%}" if task == "error" else f"{held[task]:.4f}"
        lines.append([
            str(row["k"]), own, f"{row['forwards']:.2f}", f"{row['MMACs']:.0f}", made, interval(held["gap"]),
            f"{held['forwards']:.2f}", f"{held['MMACs']:.0f}", f"{held['MMACs'] / row['MMACs']:.2f}",
        ])  # fmt: skip
    what = "error" if task == "error" else "NLL"
    heads = (
        "first k",
        what,
        "forwards",
        "MMACs",
        f"cascade's {what}",
        "difference (95 %)",
        "forwards",
        "MMACs",
        "MACs ÷",
    )
    return f"### At equal {what}: {name.rsplit(', ', 1)[0]}\n\n{table(heads, lines)}"


def decided(name: str, tasks: Figures) -> str:
    """Selective prediction and unknown images."""
    lines = [
        [
            task, rule, *(f"{one[name]:.1%}" for name in NAMES[:2]), f"{one[NAMES[2]]:.2%}",
            f"{one['FPR CIFAR-100']:.1%}", f"{one['FPR MNIST']:.1%}", f"{one['error']:.2%}",
            *(f"{one[name]:.2f}" for name in ("share", "share CIFAR-100", "share MNIST")),
        ]
        for task, rules in tasks.items() for rule, one in rules.items()
    ]  # fmt: skip
    heads = (
        "fitted for", "rule", *NAMES, "FPR, CIFAR-100", "FPR, MNIST", "error", "MACs", "MACs, CIFAR-100", "MACs, MNIST",
    )  # fmt: skip
    return f"### Decisions: {name}\n\n{table(heads, lines)}"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def level(cascades: Sequence[Figures]) -> str:
    """The share that was asked for, or that halves of the images of the fit asked for."""
    if cascades[0]["keep"] is not None:
        return f"{cascades[0]['keep']:.0%}"
    return f"crossed: {', '.join(format(one['level'], '.1%') for one in cascades)}"


def over(values: Sequence[float], digits: int = 4) -> str:
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def interval(band: Sequence[float]) -> str:
    return f"{band[0]:+.4f} ({band[1]:+.4f} to {band[2]:+.4f})"


def share(several: Sequence[Sequence[float]]) -> str:
    if len(several) > 1:
        return over([100 * one[0] for one in several], 1)
    (one,) = several
    return f"{one[0]:.1%} ({one[1]:.1%} to {one[2]:.1%})"


if __name__ == "__main__":
    print(tables(json.loads((Path(__file__).parent / "figures.json").read_text(encoding="utf-8"))))
