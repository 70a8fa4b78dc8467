"""Pools of eight real networks: fitted on 2,000 labelled images, judged on the other 8,000, five splits.

    python experiments/pools/run.py data [--splits 5] [--out experiments/pools/figures.json]

Writes the figures and prints the tables of README.md. Nothing is chosen on the images that give the figures.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from eight import Predictions, read
from tables import tables
from torch import Tensor

from pluria.pool import (
    fit_extremised,
    fit_fusion,
    fit_gate,
    fit_linear,
    fit_log_linear,
    fit_member_temperatures,
    fit_temperature,
    fit_vector_scaling,
    greedy,
    mean_logit,
    mean_probability,
    median_probability,
    out_of_fold,
    trimmed_probability,
    vote,
    zpe,
)
from pluria.score import aurc, brier, ece, error, max_probability, nll, paired_bootstrap

Pool = Callable[[Tensor], Tensor]
Figures = dict[str, float | None]
Fit = Callable[[Tensor, Tensor, Sequence[str]], Pool]
"""(log-probabilities [K, M, C], classes [M], a group for each member) -> a pool of [K, N, C]."""

CONTROL = "best single, temperature"
ROWS = (100, 500, 2000)
MEMBERS = (1, 2, 4, 6, 8)


def best_single(rows: Tensor, y: Tensor, groups: Sequence[str]) -> Pool:
    """The network of least NLL after a temperature of its own, with it."""
    fits = [fit_temperature(own, y) for own in rows]
    losses = [float(nll(fit(own), y).mean()) for fit, own in zip(fits, rows, strict=True)]
    best = min(range(len(rows)), key=losses.__getitem__)
    return lambda new: fits[best](new[best])


def tempered_members(rows: Tensor, y: Tensor, groups: Sequence[str]) -> Pool:
    """Each network with a temperature of its own, then the mean probability."""
    temperatures = fit_member_temperatures(rows, y)
    return lambda new: mean_probability(temperatures(new))


def followed(fit: Fit, second: Callable[[Tensor, Tensor], Pool] = fit_temperature, *, same_rows: bool = False) -> Fit:
    """The same pool with a temperature behind it, fitted on answers out of fold: no pool has seen the rows it answers.

    `same_rows` fits it on the answers for the pool's own rows, which are too good.
    """

    def fitted(rows: Tensor, y: Tensor, groups: Sequence[str]) -> Pool:
        pool = fit(rows, y, groups)
        answers = pool(rows) if same_rows else out_of_fold(lambda known, own: fit(known, own, groups), rows, y)
        last = second(answers, y)
        return lambda new: last(pool(new))

    return fitted


def weighted(weigh: Callable[[Tensor, Tensor], Tensor]) -> Fit:
    """The mean probability with these weights."""

    def fitted(rows: Tensor, y: Tensor, groups: Sequence[str]) -> Pool:
        weights = weigh(rows, y)
        return lambda new: mean_probability(new, weights)

    return fitted


def by_confidence(select: float | None) -> Fit:
    """ZPE without a single label: half of the fitting rows are its own, the other half its background."""
    return weighted(lambda rows, y: zpe(rows[:, ::2], rows[:, 1::2], select=select))


PLAIN: dict[str, Fit] = {
    "mean probability": lambda rows, y, groups: mean_probability,
    "mean logit": lambda rows, y, groups: mean_logit,
    "median": lambda rows, y, groups: median_probability,
    "trimmed": lambda rows, y, groups: trimmed_probability,
    "tempered members": tempered_members,
    "zpe": by_confidence(None),
    "zpe, selected": by_confidence(0.5),
    "greedy": weighted(greedy),
    "linear": lambda rows, y, groups: fit_linear(rows, y),
    "linear, two tiers": lambda rows, y, groups: fit_linear(rows, y, groups=groups),
    "linear, equal in groups": lambda rows, y, groups: fit_linear(rows, y, groups=groups, within="equal"),
    "gate": lambda rows, y, groups: fit_gate(rows, y),
    "log-linear": lambda rows, y, groups: fit_log_linear(rows, y),
}
POOLS: dict[str, Fit] = {
    CONTROL: best_single,
    "vote": lambda rows, y, groups: vote,
    **PLAIN,
    **{f"{name}, temperature": followed(fit) for name, fit in PLAIN.items()},
    **{f"{name}, vector": followed(PLAIN[name], fit_vector_scaling) for name in ("mean probability", "log-linear")},
    "extremised": lambda rows, y, groups: fit_extremised(rows, y),
    "log-linear, no ridge": lambda rows, y, groups: fit_log_linear(rows, y, ridge=0.0),
    "fusion of the outputs": lambda rows, y, groups: fit_fusion(rows, y, classes=rows.shape[-1]),
}
FEW: dict[str, Fit] = {
    **{name: POOLS[name] for name in (CONTROL, "mean probability, temperature", "linear", "linear, temperature")},
    "linear, temperature on the same rows": followed(PLAIN["linear"], same_rows=True),
    **{name: POOLS[name] for name in ("gate", "log-linear")},
}
"""The pools whose need of labels, and of networks, is measured."""


def split(count: int, fitting: int, seed: int) -> tuple[Tensor, Tensor]:
    """Row numbers that are fitted on, and all others in order."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
    return order[:fitting], order[fitting:].sort().values


def judged(predictions: Predictions, pools: dict[str, Fit], seed: int, fitting: int, kept: int) -> dict[str, Tensor]:
    """Every pool's answers `[N, C]` on the rows of a split, fitted on the first `kept` of its fitting rows."""
    fit_rows, test = split(len(predictions.y), fitting, seed)
    used = fit_rows[:kept]
    known, classes, new = predictions.log_probs[:, used], predictions.y[used], predictions.log_probs[:, test]
    return {name: fit(known, classes, predictions.groups)(new) for name, fit in pools.items()}


def figures_of(pooled: Tensor, y: Tensor) -> Figures:
    """The figures of one pool on one split; no NLL where it is infinite, since a class got no vote."""
    wrong, loss = error(pooled, y), float(nll(pooled, y).mean())
    return {
        "nll": loss if math.isfinite(loss) else None,
        "error": float(wrong.mean()),
        "brier": float(brier(pooled, y).mean()),
        "ece": ece(pooled, y),
        "aurc": aurc(max_probability(pooled), wrong),
    }


def compared(predictions: Predictions, splits: int, fitting: int) -> dict[str, object]:
    """All pools on all splits, with intervals of the difference in NLL from the control: rows drawn as clusters."""
    found: dict[str, list[Figures]] = {name: [] for name in POOLS}
    losses: dict[str, list[Tensor]] = {name: [] for name in POOLS}
    tests = []
    for seed in range(splits):
        test = split(len(predictions.y), fitting, seed)[1]
        y = predictions.y[test]
        for name, pooled in judged(predictions, POOLS, seed, fitting, fitting).items():
            found[name].append(figures_of(pooled, y))
            losses[name].append(nll(pooled, y))
        tests.append(test)
    rows, control = torch.cat(tests), torch.cat(losses[CONTROL])
    intervals = {}
    for name, own in losses.items():
        values = torch.cat(own)
        if bool(torch.isfinite(values).all()):
            gap = paired_bootstrap(values, control, seed=0, clusters=rows)
            intervals[name] = [gap.estimate, gap.low, gap.high]
    return {"splits": found, "against the control": intervals}


def by_rows(
    predictions: Predictions, splits: int, fitting: int, counts: Sequence[int]
) -> dict[str, dict[str, list[float]]]:
    """NLL of some pools fitted on fewer rows, always judged on the same ones."""
    return {str(kept): nlls(lambda seed: predictions, splits, fitting, kept) for kept in counts}


def by_members(
    predictions: Predictions, splits: int, fitting: int, counts: Sequence[int]
) -> dict[str, dict[str, list[float]]]:
    """NLL of some pools of the first k networks in a random order, another for each split."""

    def first(count: int) -> Callable[[int], Predictions]:
        def chosen(seed: int) -> Predictions:
            order = torch.randperm(len(predictions.names), generator=torch.Generator().manual_seed(100 + seed))
            return predictions.members(order[:count].tolist())

        return chosen

    return {str(count): nlls(first(count), splits, fitting, fitting) for count in counts}


def nlls(of: Callable[[int], Predictions], splits: int, fitting: int, kept: int) -> dict[str, list[float]]:
    """Mean NLL of the pools of FEW on each split."""
    found: dict[str, list[float]] = {name: [] for name in FEW}
    for seed in range(splits):
        predictions = of(seed)
        y = predictions.y[split(len(predictions.y), fitting, seed)[1]]
        for name, pooled in judged(predictions, FEW, seed, fitting, kept).items():
            found[name].append(float(nll(pooled, y).mean()))
    return found


def measure(
    predictions: Predictions,
    *,
    splits: int = 5,
    fitting: int = 2000,
    rows: Sequence[int] = ROWS,
    members: Sequence[int] = MEMBERS,
) -> dict[str, object]:
    """Everything that figures.json holds."""
    log_linear = [
        fit_log_linear(predictions.log_probs[:, u], predictions.y[u]).exponents
        for u, _ in (split(len(predictions.y), fitting, seed) for seed in range(splits))
    ]
    return {
        "fitted on": fitting,
        "judged on": len(predictions.y) - fitting,
        "networks": {
            n: figures_of(own, predictions.y) for n, own in zip(predictions.names, predictions.log_probs, strict=True)
        },
        "exponents": log_linear,
        "pools": compared(predictions, splits, fitting),
        "rows": by_rows(predictions, splits, fitting, rows),
        "members": by_members(predictions, splits, fitting, members),
    }


def main() -> None:
    """Measure, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder of the predictions")
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("figures.json"))
    options = parser.parse_args()
    found = measure(read(options.data), splits=options.splits)
    made = {"torch": torch.__version__, "python": platform.python_version(), "machine": platform.machine()}
    options.out.write_text(json.dumps({"made with": made, **found}, indent=1) + "\n", encoding="utf-8")
    print(tables(found))


if __name__ == "__main__":
    main()
