"""Planes through three networks of one seed: NLL, and how far the answers are from each of the three.

    python experiments/fast-ensembling/planes.py cifar10 data/cifar-10-batches-bin [--out FILE | --stored FILE]

First and last snapshot with an INT-5 member of the last; IVON's mean with a member of its Gaussian and an INT-5 member.
500 test images, the first, which fit temperatures elsewhere. Distances are those of weight space.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
from matplotlib import pyplot
from run import cifar10, fashion
from runs import RUNS, Setting
from torch import nn

import pluria
from pluria.core.params import Params
from pluria.predict import gather, predict
from pluria.score import nll
from pluria.zoo import Dataset

POINTS, ROWS = 11, 500
HERE = Path(__file__).parent


def trios(setting: Setting) -> dict[str, dict[str, Params]]:
    """Three networks for each plane, by name; the first is the origin."""
    roles, seed = pluria.roles(setting.model()), setting.seed
    sse, ivon = RUNS["sse"](setting)["sse"], RUNS["ivon"](setting)
    last, mean = sse.take([len(sse) - 1]), ivon["ivon_mean"]

    def rounded(ensemble: pluria.Ensemble) -> Params:
        return next(iter(pluria.low_precision(ensemble, members=1, roles=roles, key=seed)))

    return {
        "snapshots": {"last": next(iter(last)), "first": next(iter(sse)), "INT-5 of the last": rounded(last)},
        "IVON": {"mean": next(iter(mean)), "a member": next(iter(ivon["ivon"])), "INT-5 of the mean": rounded(mean)},
    }


def measured(model: nn.Module, ends: dict[str, Params], rows: Dataset) -> dict[str, Any]:
    """NLL on a grid of points, and the mean KL divergence from each network's answers to those there."""
    found = pluria.plane(*ends.values(), points=POINTS, margin=0.2)
    logs = [
        gather(predict(model, ensemble, rows.batches(ROWS)))[0].log_softmax(-1)
        for ensemble in (found.ensemble, pluria.stack(list(ends.values())))
    ]
    grid, own = logs
    apart = [[float((one.exp() * (one - point)).sum(-1).mean()) for point in grid] for one in own]
    return {
        "names": list(ends),
        "nll": [float(nll(point, rows.targets).mean()) for point in grid],
        "ends": [float(nll(one, rows.targets).mean()) for one in own],
        "apart": apart,
        "coordinates": found.coordinates.tolist(),
        "anchors": found.anchors.tolist(),
    }


def draw(planes: dict[str, Any], file: Path) -> None:
    """A row for each plane: the loss, and the distance of the answers to each of the three networks."""
    matplotlib.rcParams.update({"svg.hashsalt": "planes", "font.size": 9, "svg.fonttype": "none"})
    figure, grid = pyplot.subplots(len(planes), 4, figsize=(15, 3.6 * len(planes)), layout="constrained")
    for row, (title, found) in zip(grid, planes.items(), strict=True):
        places, anchors = np.array(found["coordinates"]), np.array(found["anchors"])
        x, y = (places[:, axis].reshape(POINTS, POINTS) for axis in (0, 1))
        shown = [("NLL", found["nll"])]
        shown += [(f"KL from: {name}", each) for name, each in zip(found["names"], found["apart"], strict=True)]
        for axes, (label, values) in zip(row, shown, strict=True):
            z = np.array(values).reshape(POINTS, POINTS)
            colours = axes.contourf(x, y, z, levels=18, cmap="viridis_r")
            figure.colorbar(colours, ax=axes)
            axes.set_title(f"{title}: {label}", fontsize=9)
            for number, (a, b) in enumerate(anchors):
                axes.plot(a, b, "o", c="white", mec="black")
                axes.annotate("abc"[number], (a, b), xytext=(5, 4), textcoords="offset points", fontsize=9)
        told = [f"{letter}: {name}" for letter, name in zip("abc", found["names"], strict=True)]
        row[0].set_xlabel(", ".join(told))
    figure.savefig(file, metadata={"Date": None, "Creator": None} if file.suffix == ".svg" else None)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=["cifar10", "fashion"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--work", type=Path, default=Path("out/fast-ensembling"))
    parser.add_argument("--out", type=Path, default=HERE / "planes.json")
    parser.add_argument("--stored", type=Path, help="what was measured before, instead of measuring")
    given = parser.parse_args()
    if given.stored:
        planes = json.loads(given.stored.read_text(encoding="utf-8"))
    else:
        train_set, test_set = {"cifar10": cifar10, "fashion": fashion}[given.set](given.data, given.rows)
        setting = Setting(train_set, 0, given.epochs, "frn", given.work / f"{given.set}-frn-{given.epochs}" / "seed0")
        rows, model = test_set.take(torch.arange(ROWS)), setting.model().eval()
        planes = {name: measured(model, ends, rows) for name, ends in trios(setting).items()}
        given.out.write_text(json.dumps(planes) + "\n", encoding="utf-8")
    for name, found in planes.items():
        ends = ", ".join(f"{end} {value:.3f}" for end, value in zip(found["names"], found["ends"], strict=True))
        print(f"{name}: NLL {ends}; least on the grid {min(found['nll']):.3f}")
    draw(planes, given.out.with_suffix(".svg"))


if __name__ == "__main__":
    main()
