"""The tables of README.md from the stored figures: python experiments/adapters/tables.py"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

Row = dict[str, Any]
ADAPTERS = ("plays", "names", "code", "manual", "markup", "news")


def tables(found: Row) -> str:
    """Both tables, as Markdown, and a count."""
    seeds: list[list[Row]] = list(found["seeds"].values())
    domains = list(dict.fromkeys(row["domain"] for row in seeds[0]))
    return f"{losses(seeds, domains)}\n\n{shares(seeds, domains)}\n\n{counted(seeds)}"


def counted(seeds: Sequence[Sequence[Row]]) -> str:
    """How often a pool is better than an average, of what has two adapters or more."""
    rows = [row for held in seeds for row in held if row.get("k", 1) > 1]
    better = sum(row["ensemble"] < row["average"] for row in rows)
    return f"Probabilities are better than params in {better} of {len(rows)}."


def losses(seeds: Sequence[Sequence[Row]], domains: Sequence[str]) -> str:
    """NLL for each token: the mean of params, and that of probabilities."""
    rows = [["no adapter", "", *(over(every(seeds, d, "no adapter", lambda r: r["nll"])) for d in domains)]]
    rows.append(["best of six, chosen on these figures", "1", *(over(best(seeds, d)) for d in domains)])
    kinds = [(r["score"], r["k"]) for r in seeds[0] if "k" in r and r["domain"] == domains[0]]
    for score, k in kinds:

        def of(domain: str, way: str, score: str = score, k: int = k) -> str:
            return over(every(seeds, domain, score, lambda r: r[way], k))

        rows.append([score, str(k), *(f"{of(d, 'average')} / {of(d, 'ensemble')}" for d in domains)])
    return table(["score", "k", *domains], rows)


def shares(seeds: Sequence[Sequence[Row]], domains: Sequence[str]) -> str:
    """The weights of all six, over the seeds."""
    rows = []
    for score in dict.fromkeys(r["score"] for r in seeds[0] if r.get("k") == len(ADAPTERS) and r["score"] != "uniform"):
        for domain in domains:
            held = every(seeds, domain, score, lambda r: r["weights"], len(ADAPTERS))
            rows.append([score, domain, *(f"{mean(column):.2f}" for column in zip(*held, strict=True))])
    return table(["score", "texts", *ADAPTERS], rows)


def every(
    seeds: Sequence[Sequence[Row]], domain: str, score: str, value: Callable[[Row], Any], k: int | None = None
) -> list[Any]:
    """One value for each seed."""
    return [value(r) for rows in seeds for r in rows if (r["domain"], r["score"], r.get("k")) == (domain, score, k)]


def best(seeds: Sequence[Sequence[Row]], domain: str) -> list[float]:
    """The least NLL of one adapter by itself, seed by seed."""
    return [min(r["nll"] for r in rows if r["domain"] == domain and r["score"] == "one adapter") for rows in seeds]


def over(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    return f"{mean(values):.3f} ± {stdev(values) if len(values) > 1 else 0:.3f}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows as Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    print(tables(json.loads((Path(__file__).parent / "figures.json").read_text(encoding="utf-8"))))
