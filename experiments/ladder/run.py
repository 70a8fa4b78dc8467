"""Every way to get members from training, on the same small task, twelve paired seeds.

    python experiments/ladder/run.py [--seeds 12] [--out experiments/ladder/figures.json]

A rung that is there already for a seed is not run again. Prints the tables of README.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from methods import LADDER, Rung
from setting import Split, split
from tables import tables
from torch import Tensor

import pluria
from pluria.pool import fit_temperature
from pluria.predict import gather, predict
from pluria.score import ece, error, nll, tally
from pluria.score.diversity import AMBIGUITY, DISAGREEMENT, MEMBER_ERROR, MEMBER_NLL

HERE = Path(__file__).parent


def measure(rung: Rung, data: Split) -> dict[str, float]:
    """Figures on the second half of the test rows; the temperature is fitted on the first."""
    model, ensemble, cost = rung
    outputs, y = gather(predict(model, ensemble, [data.figures]))
    fitted, targets = gather(predict(model, ensemble, [data.calibration]))
    pooled = pluria.mean_probability(outputs)
    assert y is not None
    assert targets is not None
    scaled = fit_temperature(pluria.mean_probability(fitted), targets)(pooled)
    scores = tally([MEMBER_NLL, MEMBER_ERROR, AMBIGUITY, DISAGREEMENT], pooled, y, outputs=outputs).figures()
    return {
        "nll": mean(nll(pooled, y)), "nll_after": mean(nll(scaled, y)), "error": mean(error(pooled, y)),
        "ece": ece(pooled, y), "runs": cost, "forwards": float(len(ensemble)), **scores,
    }  # fmt: skip


def mean(values: Tensor) -> float:
    return float(values.mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--out", type=Path, default=HERE / "figures.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = json.loads(given.out.read_text()) if given.out.exists() else {"rungs": {}}
    found["machine"] = f"{platform.processor() or platform.machine()}, torch {torch.__version__}"
    found["date"] = time.strftime("%Y-%m-%d")
    found["rungs"] = {name: found["rungs"].get(name, {}) for name in LADDER} | found["rungs"]
    for seed in range(given.seeds):
        data = split(seed)
        for name, make in LADDER.items():
            rows = found["rungs"][name]
            if str(seed) not in rows:
                rows[str(seed)] = measure(make(data), data)
                given.out.write_text(json.dumps(found, indent=1) + "\n")
                print(seed, name, {k: round(v, 4) for k, v in rows[str(seed)].items()}, flush=True)
    print(tables(found))


if __name__ == "__main__":
    main()
