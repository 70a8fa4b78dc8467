"""The plane through the ResNet-20 and two of its low-precision members: NLL of 500 calibration images at every point.

    python experiments/ex-uno-pluria/plane.py [--format int4] [--out FILE | --stored FILE] [--picture plane.svg]

Batch-norm statistics stay the network's own. Distances are those of weight space.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch

import pluria
from pluria.core.params import params_of
from pluria.predict import predict
from pluria.recipe.reading import read_recipe
from pluria.recipe.resolve import data_rows, load_network
from pluria.score import nll

HERE, ROWS, POINTS = Path(__file__).parent, 500, 9


def measured(format: str) -> dict[str, object]:
    """NLL on a grid of points, its coordinates and those of the three networks, and the three networks' own NLL."""
    recipe = read_recipe(HERE / "one.yaml")
    assert recipe.network is not None
    model, _ = load_network(recipe.network)
    rows = data_rows(recipe).calibration
    rows = rows.take(torch.arange(ROWS))
    members = pluria.low_precision(model, format=format, members=2)
    ends = [params_of(model), members.params(0), members.params(1)]
    found = pluria.plane(*ends, points=POINTS, margin=0.25)

    def losses(ensemble: pluria.Ensemble) -> list[float]:
        blocks = predict(model, ensemble, list(rows.batches(ROWS)), channels_last=True)
        return [float(nll(block.outputs[0].log_softmax(-1), rows.targets).mean()) for block in blocks]

    return {
        "format": format,
        "rows": ROWS,
        "nll": losses(found.ensemble),
        "coordinates": found.coordinates.tolist(),
        "anchors": found.anchors.tolist(),
        "ends": losses(pluria.stack(ends)),
    }


def draw(found: dict[str, object], file: Path) -> None:
    """Contours of the loss with the three networks on them."""
    places, anchors = np.array(found["coordinates"]), np.array(found["anchors"])
    loss = np.array(found["nll"]).reshape(POINTS, POINTS)
    x, y = places[:, 0].reshape(POINTS, POINTS), places[:, 1].reshape(POINTS, POINTS)
    mpl.rcParams["svg.hashsalt"] = "plane"
    figure, axis = plt.subplots(figsize=(5.2, 4.2), layout="constrained")
    contours = axis.contourf(x, y, loss, levels=20, cmap="viridis_r")
    figure.colorbar(contours, label=f"NLL of {found['rows']} calibration images")
    for (a, b), name in zip(anchors, ("the network", "member 0", "member 1"), strict=True):
        axis.plot(a, b, "o", c="white", mec="black")
        axis.annotate(name, (a, b), xytext=(5, 5), textcoords="offset points", fontsize=9)
    axis.set(
        xlabel="distance in weight space", ylabel="distance in weight space", title=f"{found['format']}, stochastic"
    )
    axis.set_aspect("equal")
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", default="int4")
    parser.add_argument("--out", type=Path, help="where what was measured is kept")
    parser.add_argument("--stored", type=Path, help="what was measured before, instead of measuring")
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(given.stored.read_text(encoding="utf-8")) if given.stored else measured(given.format)
    if given.out:
        given.out.write_text(json.dumps(found), encoding="utf-8")
    loss, ends = np.array(found["nll"]), found["ends"]
    least = int(loss.argmin())
    share = float((loss < ends[0]).mean())
    print(f"{found['format']}: NLL of the network {ends[0]:.4f}, of the members {ends[1]:.4f} and {ends[2]:.4f};")
    print(f"least on the grid {loss.min():.4f} at {np.round(found['coordinates'][least], 2).tolist()},")
    print(f"members at distance {found['anchors'][1][0]:.2f}; {share:.0%} of the points are below the network")
    if given.picture:
        draw(found, given.picture)


if __name__ == "__main__":
    main()
