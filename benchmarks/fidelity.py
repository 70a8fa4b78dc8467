"""What a back end changes in an answer: the public ResNet-20 on CIFAR-10's test images, eight members at INT-4.

    python -m benchmarks.fidelity [--members 8] [--seed 0 --seed 1 --seed 2]

The network and the images lie in `data/`, see experiments/ex-uno-pluria; without them it says so. Figures are those of
the mean probability over all images, means and deviations over seeds; nothing is chosen here. "From the loop" is
|outputs - outputs of the loop| / |outputs of the loop - their mean|, the largest over the seeds.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.networks import WEIGHTS, case
from benchmarks.sides import keep
from pluria.pool import mean_probability
from pluria.predict import gather, predict
from pluria.predict.backends import Name
from pluria.predict.choose import distance
from pluria.sample import low_precision
from pluria.score import ERROR, NLL, tally
from pluria.zoo import read

IMAGES = Path("data/cifar-10-batches-bin")
WAYS: tuple[Name, ...] = ("loop", "bfloat16", "int8")


def figures(outputs: Tensor, targets: Tensor) -> dict[str, float]:
    """NLL and error of the mean probability."""
    return tally([NLL, ERROR], mean_probability(outputs), targets).figures()


def main(
    members: Annotated[int, typer.Option(help="Members.")] = 8,
    seeds: Annotated[list[int], typer.Option("--seed", help="Seeds of the members.")] = [0, 1, 2],  # noqa: B006
) -> None:
    """Measure what faster ways to run members change."""
    if not (WEIGHTS.is_file() and IMAGES.is_dir()):
        return print(f"fidelity: no {WEIGHTS} or no {IMAGES}; experiments/ex-uno-pluria says where they come from")
    model, mean, std = case("resnet20", 1).model, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    batches = read("cifar10", path=str(IMAGES), split="test", mean=mean, std=std).batches(256)
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for seed in seeds:
        made = low_precision(model, format="int4", members=members, key=seed)
        loop, targets = gather(predict(model, made, batches))
        for way in WAYS:
            outputs = loop if way == "loop" else gather(predict(model, made, batches, backend=way))[0]
            found[way].append({**figures(outputs, targets), "from the loop": distance(outputs, loop)})
    table = Table("back end", "NLL", "error, %", "from the loop")
    for way, rows in found.items():
        nll, error = ([row[name] for row in rows] for name in ("nll", "error"))
        most = max(row["from the loop"] for row in rows)
        table.add_row(way, _spread(nll, 1), _spread(error, 100), f"{most:.4f}")
    Console(width=80).print(table)
    keep("fidelity", [], members=members, seeds=seeds, figures=found)
    return None


def _spread(values: list[float], times: float) -> str:
    middle = f"{times * statistics.mean(values):.4f}"
    return middle if len(values) == 1 else f"{middle} ± {times * statistics.stdev(values):.4f}"


if __name__ == "__main__":
    typer.run(main)
