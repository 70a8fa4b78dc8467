"""Pools of real quantile forecasts: hospital admissions with influenza in the United States, season 2023-24.

    python experiments/quantiles/flusight.py [--data data/flusight/flusight_2023-24.npz] [--draws 2000] [--out FILE]

The first dates fit the weights, the next ones choose their decay and fit the conformal shifts, the last ones give the
figures. A forecast takes part in a fit only if what it forecasts was observed before the next part begins. Writes what
it found, and prints the table of README.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import flusight, setting
from torch import Tensor
from torch.nn.functional import one_hot

from pluria.pool import (
    QuantileWeights,
    fit_conformal,
    fit_quantile_weights,
    isotonic_quantiles,
    mean_quantiles,
    median_quantiles,
    sort_quantiles,
)
from pluria.score import coverage, crossing_share, pinball, weighted_interval_score

# Dates 0 .. 12 fit, 13 .. 17 choose and calibrate, 18 .. 30 give the figures.
CHOOSES, JUDGES = 13, 18
DECAYS = (0.001, 0.01, 0.1)
PENALTY = 10.0
BLOCK = 3
ENSEMBLE, BASELINE = "FluSight-ensemble", "FluSight-baseline"


@dataclass(frozen=True)
class Forecasts:
    """Quantiles `[K, N, Q]` of every model, what was observed `[N]`, and each row's date, place and horizon."""

    models: list[str]
    quantiles: Tensor
    y: Tensor
    levels: Tensor
    date: Tensor
    place: Tensor
    horizon: Tensor

    def of(self, model: str) -> Tensor:
        """One model's quantiles `[N, Q]`."""
        return self.quantiles[self.models.index(model)]

    def known(self, first: int, before: int) -> Tensor:
        """Rows of the dates from `first` on whose target lies before the date `before`: a mask `[N]`."""
        return (self.date >= first) & (self.date + self.horizon < before)


def read(path: Path) -> Forecasts:
    """The forecasts as rows: date, place and horizon end to end."""
    with np.load(path) as held:
        quantiles = torch.from_numpy(held["quantiles"]).to(torch.float64)
        y = torch.from_numpy(held["observed"]).to(torch.float64)
        levels, models = torch.from_numpy(held["levels"]), [str(name) for name in held["models"]]
    date, place, horizon = (grid.reshape(-1) for grid in torch.meshgrid(*map(torch.arange, y.shape), indexing="ij"))
    return Forecasts(models, quantiles.flatten(1, 3), y.flatten(), levels, date, place, horizon)


def check(data: Forecasts) -> None:
    """Figures over the whole season on common cells, which others can compare theirs with; nothing is fitted."""
    missing = data.quantiles.isnan().any(-1).double().mean(1)
    many = [i for i, name in enumerate(data.models) if not name.startswith("FluSight") and missing[i] < 0.1]
    base = data.quantiles[[i for i in many if "ensemble" not in data.models[i]]]
    needed = [*data.quantiles[many], data.of(ENSEMBLE), data.of(BASELINE)]
    common = ~(torch.stack(needed).isnan().any(0).any(-1) | data.y.isnan())
    pools = {"mean": mean_quantiles(base), "median": median_quantiles(base)}
    pools |= {"official ensemble": data.of(ENSEMBLE), "baseline": data.of(BASELINE)}
    losses = {n: 2 * pinball(q[common], data.y[common], data.levels).mean().item() for n, q in pools.items()}
    print(f"whole season, {len(base)} models, {int(common.sum())} common rows, mean weighted interval score:")
    print("  " + ", ".join(f"{name} {loss:.1f}" for name, loss in losses.items()), end="\n\n")


def members(data: Forecasts) -> Tensor:
    """Models that forecast at least half of the rows of the fit; the hub's own pools are left out. `[K, N, Q]`."""
    fit = data.known(0, CHOOSES) & ~data.y.isnan()
    there = (~data.quantiles[:, fit].isnan()).all(-1).double().mean(1) >= 0.5
    kept = [i for i, name in enumerate(data.models) if not name.startswith("FluSight") and there[i]]
    print(f"{len(kept)} members: {', '.join(data.models[i] for i in kept)}", end="\n\n")
    return data.quantiles[kept]


def chosen(data: Forecasts, outputs: Tensor, kind: str, features: Tensor | None, crossing: float) -> Tensor:
    """Weights fitted on the first dates with the decay that is best on the next ones, applied to all rows."""
    fit, choose = data.known(0, CHOOSES), data.known(CHOOSES, JUDGES)

    def fitted(decay: float) -> QuantileWeights:
        rows = None if features is None else features[fit]
        options = {"kind": kind, "features": rows, "crossing": crossing, "decay": decay, "steps": 150}
        return fit_quantile_weights(outputs[:, fit], data.y[fit], data.levels, **options)  # type: ignore[arg-type]

    def loss(pool: QuantileWeights) -> float:
        pooled = pool(outputs[:, choose], None if features is None else features[choose])
        return pinball(pooled, data.y[choose], data.levels).nanmean().item()

    best = min((fitted(decay) for decay in DECAYS), key=loss)
    print(
        f"  {kind:6s} {'global' if features is None else 'local '} loss of the fit {best.start:.2f} -> {best.loss:.2f}"
    )
    return best(outputs, features)


def refitted(data: Forecasts, outputs: Tensor) -> Tensor:
    """Coarse weights fitted anew at every date on all that was known then, decay fixed: what a forecaster would do."""
    pooled = torch.full_like(outputs[0], torch.nan)
    for date in range(JUDGES, int(data.date.max()) + 1):
        fit, now = data.known(0, date), data.date == date
        options = {"kind": "coarse", "crossing": 0.0, "decay": DECAYS[1], "steps": 100}
        pool = fit_quantile_weights(outputs[:, fit], data.y[fit], data.levels, **options)  # type: ignore[arg-type]
        pooled[now] = pool(outputs[:, now])
    return pooled


def arms(data: Forecasts, outputs: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Every pool by name, on all rows."""
    yield "baseline", data.of(BASELINE)
    yield "official ensemble", data.of(ENSEMBLE)
    mean, median = mean_quantiles(outputs), median_quantiles(outputs)
    yield "mean", mean
    yield "median", median
    horizon, place = one_hot(data.horizon).double(), one_hot(data.place).double()
    learned = {
        "coarse": chosen(data, outputs, "coarse", None, 0.0),
        "medium": chosen(data, outputs, "medium", None, 0.0),
        "medium, penalty": chosen(data, outputs, "medium", None, PENALTY),
        "fine, penalty": chosen(data, outputs, "fine", None, PENALTY),
        "coarse by horizon": chosen(data, outputs, "coarse", horizon, 0.0),
        "coarse by place": chosen(data, outputs, "coarse", place, 0.0),
        "medium by horizon, penalty": chosen(data, outputs, "medium", horizon, PENALTY),
        "coarse, refitted at every date": refitted(data, outputs),
    }
    for name, pooled in learned.items():
        yield name, pooled
    for name in ("medium", "medium, penalty", "fine, penalty", "medium by horizon, penalty"):
        yield f"{name}, sorted", sort_quantiles(learned[name])
        yield f"{name}, isotonic", isotonic_quantiles(learned[name])
    for name, pooled in (("mean", mean), ("median", median), ("coarse", learned["coarse"])):
        yield f"{name}, conformal", sort_quantiles(conformal(data, pooled, None))
        yield f"{name}, conformal by size", sort_quantiles(conformal(data, pooled, size(pooled)))


def conformal(data: Forecasts, pooled: Tensor, scale: Tensor | None) -> Tensor:
    """Pooled quantiles with shifts from the dates between the fit and the figures."""
    rows = data.known(CHOOSES, JUDGES)
    fitted = fit_conformal(pooled[rows], data.y[rows], data.levels, scale=None if scale is None else scale[rows])
    return fitted(pooled, scale)


def size(pooled: Tensor) -> Tensor:
    """What a row forecasts, roughly: one more than its median, so that it is positive."""
    return 1 + pooled[:, pooled.shape[1] // 2].nan_to_num(nan=0.0).clamp(min=0.0)


def by_date(values: Tensor, date: Tensor) -> Tensor:
    """Sums of values `[N]` over each date of the figures."""
    return torch.zeros(int(date.max()) + 1, dtype=values.dtype).index_add(0, date, values)


def difference(first: Tensor, second: Tensor, date: Tensor, draws: int) -> tuple[float, float]:
    """The 95 % interval of mean(first - second): dates drawn in circular blocks of neighbours, both from the same."""
    sums, counts = by_date(first - second, date), by_date(torch.ones_like(first), date)
    days = len(sums)
    starts = torch.randint(days, (draws, -(-days // BLOCK), 1), generator=torch.Generator().manual_seed(0))
    drawn = ((starts + torch.arange(BLOCK)) % days).flatten(1)[:, :days]
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def judged(data: Forecasts, pools: dict[str, Tensor], rows: Tensor, draws: int) -> dict[str, Any]:
    """Figures of every pool on some rows; the interval is that of the difference from the median."""
    y, date, found = data.y[rows], data.date[rows] - JUDGES, {}
    plain = weighted_interval_score(pools["median"][rows], y, data.levels).total
    for name, quantiles in pools.items():
        score, covered = weighted_interval_score(quantiles[rows], y, data.levels), coverage(quantiles[rows], y)
        low, high = difference(score.total, plain, date, draws)
        found[name] = {
            "wis": score.total.mean().item(),
            "difference": [(score.total - plain).mean().item(), low, high],
            "parts": [part.mean().item() for part in (score.dispersion, score.under, score.over)],
            "covered": covered.tolist(),
            "crossing": crossing_share(quantiles[rows]).item(),
        }
    return found


def main() -> None:
    """Fit, judge, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/flusight/flusight_2023-24.npz"))
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    data = read(options.data)
    check(data)
    outputs = members(data)
    pools = dict(arms(data, outputs))
    rows = (data.date >= JUDGES) & ~data.y.isnan() & ~torch.stack([*pools.values()]).isnan().any(0).any(-1)
    about = {
        **setting(),
        "seeds": [0],
        "members": len(outputs),
        "rows": int(rows.sum()),
        "dates": int(data.date.max()) + 1 - JUDGES,
    }
    found = {"about": about, "pools": judged(data, pools, rows, options.draws)}
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(flusight(found))


if __name__ == "__main__":
    main()
