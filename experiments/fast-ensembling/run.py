"""Members from one training run against networks trained apart, by backward passes and by bits: ResNet-20 with FRN.

    python experiments/fast-ensembling/run.py fashion data/fashion_mnist_sample --seeds 3
    python experiments/fast-ensembling/run.py cifar10 data/cifar-10-batches-bin --seeds 3 --rows 10000

Runs are kept in `--work` and go on where they were killed. Half of the test images fit temperatures, half give the
figures. Prints the table of README.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import torch
from runs import RUNS, Setting
from torch import Tensor, nn
from torch.nn.functional import pad

import pluria
from pluria.align import has_batch_norm
from pluria.core.ensemble import Ensemble
from pluria.pool import fit_temperature
from pluria.predict import gather, predict
from pluria.score import ece, error, nll
from pluria.zoo import Dataset, read

HERE = Path(__file__).parent
COLUMNS = (("error", 2, 100, " %"), ("nll", 3, 1, ""), ("nll_after", 3, 1, ""), ("ece", 3, 1, ""))
"""Keys, digits, scales and units of the table."""


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


def arms(found: dict[int, dict[str, Ensemble]], seed: int, model: nn.Module) -> Iterator[tuple[str, Ensemble, float]]:
    """(name, ensemble, backward passes in units of one run) of one seed; deep ensembles begin at this seed."""
    own = found[seed]
    yield "single", own["end"], 1.0
    order = [seed, *(s for s in found if s != seed)]
    for size in range(2, len(found) + 1):
        yield f"deep ensemble × {size}", pluria.join(*(found[s]["end"] for s in order[:size])), float(size)
    for name in ("sse", "fge", "swa", "swag", "csghmc", "ivon"):
        if name in own:
            yield f"{name} × {len(own[name])}", own[name], 1.0
    for name in ("end", "sse", "swa", "csghmc"):
        if name in own:
            many = max(1, 8 // len(own[name]))
            drawn = pluria.low_precision(
                own[name], format="int5", members=many * len(own[name]), roles=pluria.roles(model), key=seed
            )
            yield f"{'single' if name == 'end' else name}, INT-5 × {len(drawn)}", drawn, 1.0


def judged(model: nn.Module, ensemble: Ensemble, test: Dataset) -> dict[str, float]:
    """Figures on the second half of the test rows, a temperature fitted on the first."""
    calibration, figures = test.split_half()
    pooled: dict[str, Tensor] = {}
    for name, part in (("fit", calibration), ("figures", figures)):
        outputs, _ = gather(predict(model, ensemble, part.batches(250), channels_last=True))
        pooled[name] = pluria.mean_probability(outputs)
    scaled = fit_temperature(pooled["fit"], calibration.targets)(pooled["figures"])
    bits = ensemble.bits()
    return {
        "nll": float(nll(pooled["figures"], figures.targets).mean()),
        "nll_after": float(nll(scaled, figures.targets).mean()),
        "error": float(error(pooled["figures"], figures.targets).mean()),
        "ece": ece(pooled["figures"], figures.targets),
        "megabits": min(bits.file, bits.members, bits.planes) / 1e6,
    }


def table(found: dict[str, Any]) -> str:
    """Every arm, mean ± standard deviation over seeds."""
    lines = [
        f"{found['about']}",
        "",
        "| what answers | runs | forwards | Mbit | error | NLL | NLL after T | ECE |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, seeds in found["arms"].items():
        rows = list(seeds.values())
        cells = [f"{rows[0]['runs']:g}", f"{rows[0]['forwards']}", f"{fmean(r['megabits'] for r in rows):.1f}"]
        for key, digits, scale, unit in (
            ("error", 2, 100, " %"),
            ("nll", 3, 1, ""),
            ("nll_after", 3, 1, ""),
            ("ece", 3, 1, ""),
        ):
            values = [row[key] for row in rows]
            wide = f" ± {stdev(values) * scale:.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{fmean(values) * scale:.{digits}f}{wide}{unit}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=["cifar10", "fashion"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--norm", choices=["frn", "batch"], default="frn")
    parser.add_argument("--work", type=Path, default=Path("out/fast-ensembling"))
    parser.add_argument("--runs", nargs="+", choices=list(RUNS), default=list(RUNS))
    given = parser.parse_args()
    train_set, test_set = {"cifar10": cifar10, "fashion": fashion}[given.set](given.data, given.rows)
    name = f"{given.set}-{given.norm}-{given.epochs}"
    settings = []
    for seed in range(given.seeds):
        folder = given.work / name / f"seed{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        settings.append(Setting(train_set, seed, given.epochs, given.norm, folder))
    # The bases of all seeds first: they are the reference of everything else.
    runs = ["base", *(each for each in given.runs if each != "base")]
    found: dict[int, dict[str, Ensemble]] = {setting.seed: {} for setting in settings}
    for each in runs:
        for setting in settings:
            found[setting.seed] |= RUNS[each](setting)
    out = HERE / f"{name}.json"
    stored: dict[str, Any] = {"arms": {}}
    stored["about"] = (
        f"{given.set}, {len(train_set)} training images, {given.epochs} epochs, {given.norm}, {given.seeds} seeds; "
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"
    )
    for setting in settings:
        model = setting.model().eval()
        for arm, ensemble, cost in arms(found, setting.seed, model):
            if has_batch_norm(model) and arm.startswith(("swa", "ivon")):
                batches = [x for number in range(2) for x, _ in setting.epoch(number)]
                ensemble = pluria.refresh(model, ensemble, batches, plain=True)
            row = judged(model, ensemble, test_set) | {"runs": cost, "forwards": len(ensemble)}
            stored["arms"].setdefault(arm, {})[str(setting.seed)] = row
            out.write_text(json.dumps(stored, indent=1) + "\n")
            print(setting.seed, arm, {k: round(v, 4) for k, v in row.items()}, flush=True)
    print(table(stored))


if __name__ == "__main__":
    main()
