"""Pools of quantile regressions on a small regression set: the strength of concrete.

    python experiments/quantiles/concrete.py [--data data/uci/concrete] [--splits 5] [--out concrete.json]

Four quantile regressions answer every training row out of fold. Two thirds of these answers fit the weights, one third
the conformal shifts; the models fitted to all training rows answer the test rows, which give the figures. Needs
scikit-learn. Writes what it found, and prints the table of README.md.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import QuantileRegressor
from sklearn.model_selection import KFold
from sklearn.neighbors import NearestNeighbors
from tables import concrete, setting
from torch import Tensor

from pluria.pool import (
    fit_conformal,
    fit_quantile_weights,
    isotonic_quantiles,
    mean_quantiles,
    median_quantiles,
    sort_quantiles,
)
from pluria.score import coverage, crossing_share, paired_bootstrap, weighted_interval_score

Array = NDArray[np.float64]
Answer = Callable[[Array, Array, Array], Array]
LEVELS = (0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95)


def linear(x: Array, y: Array, new: Array) -> Array:
    """Linear quantile regression, level by level."""
    return np.stack([QuantileRegressor(quantile=a, alpha=1e-4).fit(x, y).predict(new) for a in LEVELS], -1)


def boosted(leaves: int, rounds: int) -> Answer:
    """Boosted trees with the pinball loss, level by level."""

    def answer(x: Array, y: Array, new: Array) -> Array:
        options = {"loss": "quantile", "max_leaf_nodes": leaves, "max_iter": rounds, "random_state": 0}
        models = [HistGradientBoostingRegressor(quantile=a, **options) for a in LEVELS]
        return np.stack([model.fit(x, y).predict(new) for model in models], -1)

    return answer


def neighbours(x: Array, y: Array, new: Array) -> Array:
    """Quantiles of the 20 nearest rows."""
    near = NearestNeighbors(n_neighbors=20).fit(x).kneighbors(new, return_distance=False)
    return np.quantile(y[near], LEVELS, axis=1).T


MODELS: dict[str, Answer] = {
    "linear": linear,
    "boosted stumps": boosted(2, 200),
    "boosted trees": boosted(15, 60),
    "neighbours": neighbours,
}


def answers(x: Array, y: Array, new: Array) -> Tensor:
    """All models' quantiles `[K, N, Q]`."""
    return torch.from_numpy(np.stack([model(x, y, new) for model in MODELS.values()]))


def out_of_fold(x: Array, y: Array) -> Tensor:
    """Answers on rows that the models have not seen, five folds."""
    found = torch.zeros(len(MODELS), len(y), len(LEVELS), dtype=torch.float64)
    for seen, unseen in KFold(5, shuffle=True, random_state=0).split(x):
        found[:, unseen] = answers(x[seen], y[seen], x[unseen])
    return found


def split(x: Array, y: Array, test: Array) -> tuple[dict[str, Tensor], Tensor]:
    """Every pool's quantiles on the test rows of one split, and what they should be."""
    train = test == 0
    scaled = (x - x[train].mean(0)) / x[train].std(0)
    known, later = out_of_fold(scaled[train], y[train]), answers(scaled[train], y[train], scaled[~train])
    observed, features = torch.from_numpy(y[train]), torch.from_numpy(scaled)
    calibrating = torch.arange(len(observed)) % 3 == 0
    levels, pools = torch.tensor(LEVELS, dtype=torch.float64), dict(zip(MODELS, later, strict=True))
    pools |= {"mean": mean_quantiles(later), "median": median_quantiles(later)}
    near = features[torch.from_numpy(train)]
    for name, options in {
        "coarse": {"kind": "coarse"},
        "medium": {"kind": "medium"},
        "fine": {"kind": "fine"},
        "coarse, local": {"kind": "coarse", "hidden": (16,), "decay": 0.01},
        "fine, local": {"kind": "fine", "hidden": (16,), "decay": 0.01},
    }.items():
        rows = {"features": near[~calibrating]} if "hidden" in options else {}
        pool = fit_quantile_weights(known[:, ~calibrating], observed[~calibrating], levels, **options, **rows)
        where = (near, features[torch.from_numpy(~train)]) if rows else (None, None)
        pools[name] = sort_quantiles(pool(later, where[1]))
        if name == "fine":
            pools["fine, unrepaired"], pools["fine, isotonic"] = pool(later), isotonic_quantiles(pool(later))
        shifts = fit_conformal(sort_quantiles(pool(known, where[0]))[calibrating], observed[calibrating], levels)
        pools[f"{name}, conformal"] = sort_quantiles(shifts(pools[name]))
    return pools, torch.from_numpy(y[~train])


def judged(pools: dict[str, Tensor], y: Tensor) -> dict[str, Any]:
    """Figures of every pool; the interval is that of the difference from the mean."""
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    plain, found = weighted_interval_score(pools["mean"], y, levels).total, {}
    for name, quantiles in pools.items():
        total, covered = weighted_interval_score(quantiles, y, levels).total, coverage(quantiles, y)
        gap = paired_bootstrap(total, plain, seed=0)
        found[name] = {
            "wis": total.mean().item(),
            "difference": [gap.estimate, gap.low, gap.high],
            "covered": covered.tolist(),
            "crossing": crossing_share(quantiles).item(),
        }
    return found


def main() -> None:
    """Fit, judge, write, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/uci/concrete"))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    options = parser.parse_args()
    rows, masks = (np.loadtxt(options.data / f"{name}.csv.gz", delimiter=",") for name in ("data", "test_mask"))
    done = [split(rows[:, :-1], rows[:, -1], masks[:, i]) for i in range(options.splits)]
    y = torch.cat([observed for _, observed in done])
    pools = {name: torch.cat([found[name] for found, _ in done]) for name in done[0][0]}
    about = {**setting(), "seeds": [0], "splits": options.splits, "rows": len(y)}
    found = {"about": about, "pools": judged(pools, y)}
    options.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(concrete(found))


if __name__ == "__main__":
    main()
