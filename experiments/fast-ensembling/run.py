"""Members from one training run against networks trained apart, by backward passes and by bits: ResNet-20 with FRN.

    python experiments/fast-ensembling/run.py cifar10 data/cifar-10-batches-bin --seeds 3
    python experiments/fast-ensembling/run.py fashion data/fashion_mnist_sample --seeds 3 --epochs 100

Runs and answers are kept in `--work` and go on where they were killed. Half of the test images that are asked fit
temperatures, half give the figures. Writes what tables.py and plots.py read.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from answers import Answers, ask
from arms import arms
from runs import RUNS, Setting
from torch.nn.functional import pad

import pluria
from pluria.pool import fit_temperature
from pluria.score import ece, error, nll
from pluria.zoo import Dataset, read

HERE = Path(__file__).parent


def cifar10(path: Path, rows: int) -> tuple[Dataset, Dataset]:
    """Training images, the first `rows`, and all test images."""
    norm = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    whole = read("cifar10", path=str(path), split="train", **norm)
    return whole.take(range(rows)), read("cifar10", path=str(path), split="test", **norm)


def fashion(path: Path, rows: int) -> tuple[Dataset, Dataset]:
    """The sample of 1,000 and 1,000 images, with a border of two pixels, all three colours alike."""
    with np.load(path / "fashion_1000_1000.npz") as held:
        sets = [(held[f"x_{part}"], held[f"y_{part}"]) for part in ("train", "test")]
    like = read("digits", split="test")
    made = []
    for part, (x, y) in zip(("train", "test"), sets, strict=True):
        images = pad(torch.from_numpy(x).view(-1, 1, 28, 28), (2, 2, 2, 2)).expand(-1, 3, -1, -1).contiguous()
        labels, scale = torch.from_numpy(y.astype(np.int64)), {"mean": (0.286,) * 3, "std": (0.353,) * 3}
        named = replace(like, inputs=images, targets=labels, name=f"Fashion-MNIST {part}", scale=255.0, **scale)
        made.append(named)
    return made[0], made[1]


def judged(answers: Answers, test: Dataset) -> dict[str, float]:
    """Figures on the second half of the test rows, a temperature fitted on the first."""
    half = len(test) // 2
    pooled = pluria.mean_probability(answers.logits)
    fit, figures = pooled[:half], pooled[half:]
    targets, bits = test.targets[half:], answers.ensemble.bits()
    return {
        "nll": float(nll(figures, targets).mean()),
        "nll_after": float(nll(fit_temperature(fit, test.targets[:half])(figures), targets).mean()),
        "error": float(error(figures, targets).mean()),
        "ece": ece(figures, targets),
        "megabits": min(bits.file, bits.members, bits.planes) / 1e6,
        "megabits_each": bits.members / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=["cifar10", "fashion"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--test-rows", type=int, default=5_000, help="test images that are asked about, the first")
    parser.add_argument("--norm", choices=["frn", "batch"], default="frn")
    parser.add_argument("--work", type=Path, default=Path("out/fast-ensembling"))
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    parser.add_argument("--only", type=int, help="do the work of this seed and stop, for several processes at once")
    given = parser.parse_args()
    train_set, test_set = {"cifar10": cifar10, "fashion": fashion}[given.set](given.data, given.rows)
    test_set = test_set.take(range(min(len(test_set), given.test_rows)))
    name = f"{given.set}-{given.norm}-{given.epochs}"
    told: dict[int, dict[str, Answers]] = {}
    for seed in range(given.seeds) if given.only is None else [given.only]:
        folder = given.work / name / f"seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        setting = Setting(train_set, seed, given.epochs, given.norm, folder)
        found = {key: value for each in given.runs for key, value in RUNS[each](setting).items()}
        if set(given.runs) == set(RUNS):
            told[seed] = ask(setting, found, test_set)
    if given.only is not None:
        return
    stored: dict[str, Any] = {"arms": {}}
    stored["about"] = (
        f"{given.set}, {len(train_set)} training images, {given.epochs} epochs, {given.norm}, {given.seeds} seeds; "
        f"{platform.machine()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"
    )
    for seed in told:
        for arm in arms(told, seed):
            kind = {"runs": arm.runs, "forwards": len(arm.answers.ensemble), "line": arm.line, "rounded": arm.rounded}
            stored["arms"].setdefault(arm.name, {})[str(seed)] = judged(arm.answers, test_set) | kind
    (HERE / f"{name}.json").write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
