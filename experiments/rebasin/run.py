"""Two independent networks before and after they are aligned: barriers along the line, and what the midpoint is worth.

    python -m experiments.rebasin.run --mnist DATA/mnist --models DATA/mnist_models --out figures.json [--only KIND ...]

Networks are trained on the first 10,000 training images of MNIST and judged on the last 5,000 test images; activations
are of 512 training images. What is aligned or repaired sees no labels.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pluria.align import has_batch_norm, rebasin, refresh, repair, variance_ratios, zipit
from pluria.check import barrier, member_losses
from pluria.core.ensemble import Ensemble, single, stack
from pluria.core.params import Params, params_of
from pluria.pool import mean_probability
from pluria.predict import gather, predict
from pluria.score import ERROR, NLL, tally
from pluria.store import read_checkpoint
from pluria.zoo import Dataset, network, read
from pluria.zoo.fit import fit

STEPS = 11


class ConvNet(nn.Module):
    """The public MNIST networks of Hendrycks, Mazeika and Dietterich (outlier exposure)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5)
        self.fc1, self.fc2 = nn.Linear(320, 50), nn.Linear(50, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.conv1(x), 2).relu()
        x = F.max_pool2d(self.conv2(x), 2).relu()
        answer: Tensor = self.fc2(self.fc1(x.flatten(1)).relu())
        return answer


@dataclass(frozen=True)
class Pair:
    """Two networks of one kind, and the data they are judged on."""

    kind: str
    seed: int
    model: nn.Module
    ends: tuple[Params, Params]
    inputs: list[Tensor]
    rows: Dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mnist", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*")
    given = parser.parse_args()
    found: list[dict[str, Any]] = json.loads(given.out.read_text()) if given.out.exists() else []
    done = {(row["kind"], row["seed"]) for row in found}
    for kind, seed, make in cases(given.mnist, given.models):
        if (kind, seed) in done or (given.only and not any(kind.startswith(one) for one in given.only)):
            continue
        found += judged(make())
        given.out.write_text(json.dumps(found, indent=1))
        print(kind, seed, file=sys.stderr, flush=True)


def cases(mnist: Path, models: Path) -> Iterator[tuple[str, int, Callable[[], Pair]]]:
    """Every kind with its seeds: the public pairs, perceptrons, convolutions with and without batch norm."""
    train = read("idx", path=mnist, split="train").take(slice(0, 10_000))
    rows = read("idx", path=mnist, split="test").take(slice(5_000, 10_000))
    for name in ("calib_baseline_epoch_9", "oe_scratch_epoch_9", "oe_tune_epoch_4"):
        yield f"public: baseline and {name.rpartition('_epoch')[0]}", 0, lambda n=name: public(models, n, train, rows)
    for width in (32, 128, 512):
        made = {"inputs": 784, "classes": 10, "hidden": [width, width]}
        for seed in range(3):
            yield f"mlp {width}", seed, lambda m=made, s=seed, w=width: trained(f"mlp {w}", "mlp", m, s, train, rows)
    for norm in ("no norm", "batch norm"):
        made = {"size": 28, "width": 8, "norm": "none" if norm == "no norm" else "batch"}
        for seed in range(3):
            kind = f"cnn 8, {norm}"
            yield kind, seed, lambda k=kind, m=made, s=seed: trained(k, "small_cnn", m, s, train, rows)


def public(models: Path, name: str, train: Dataset, rows: Dataset) -> Pair:
    """The baseline and another of the public networks."""
    one, other = (read_checkpoint(models / f"oe_{n}.safetensors").params for n in ("baseline_epoch_9", name))
    kind = f"public: baseline and {name.rpartition('_epoch')[0]}"
    return Pair(kind, 0, ConvNet().eval(), (one, other), unlabelled(train), rows)


def trained(kind: str, name: str, made: dict[str, Any], seed: int, train: Dataset, rows: Dataset) -> Pair:
    """Two networks of one kind from different starts, on the same images in different orders."""
    ends = [
        fit(network(name, seed=start, **made), train, epochs=4, batch=64, rate=0.003, seed=start)
        for start in (2 * seed + 10, 2 * seed + 11)
    ]
    return Pair(kind, seed, ends[0], (params_of(ends[0]), params_of(ends[1])), unlabelled(train), rows)


def unlabelled(train: Dataset) -> list[Tensor]:
    """512 training images in two batches."""
    return [x for x, _ in train.take(slice(0, 512)).batches(256)]


def judged(pair: Pair) -> list[dict[str, Any]]:
    """A row for each way to make one network of the two."""
    two, model, inputs = stack(pair.ends), pair.model, pair.inputs
    ways = {
        "as they are": two,
        "matched by weights": rebasin(model, two, inputs),
        "matched by activations": rebasin(model, two, inputs, by="activations"),
    }
    ends = [figures(pair, single(end)) for end in pair.ends]
    both = {"nll": sum(e["nll"] for e in ends) / 2, "error": sum(e["error"] for e in ends) / 2}
    rows = [
        {"way": "the two networks, on average", **both},
        {"way": "ensemble of the two", **figures(pair, two)},
    ]
    for way, members in ways.items():
        rows += midpoints(pair, way, members)
    for way, options in (("zipped, within and across", {}), ("zipped, across only", {"alpha": 0.0, "beta": 0.0})):
        rows.append({"way": way, **figures(pair, mended(pair, single(zipit(model, two, inputs, **options))))})
    return [{"kind": pair.kind, "seed": pair.seed, **row} for row in rows]


def midpoints(pair: Pair, way: str, members: Ensemble) -> Iterator[dict[str, Any]]:
    """The mean of two members, with its barrier, and repaired where there is no batch norm."""
    one, other = (members.params(member) for member in members.members)
    losses = member_losses(pair.model, pair.rows.batches(500), change=lambda line: mended(pair, line))
    line = barrier(one, other, losses, steps=STEPS)
    mean = single({n: ((one[n].double() + other[n].double()) / 2).to(v.dtype) for n, v in one.items()})
    ratios = variance_ratios(pair.model, mean.params(0), members, pair.inputs)
    measured = {"barrier": line.height, "losses": line.losses.tolist(), "distance": distance(one, other)}
    measured |= {"ratio": min(ratios.values())}
    yield {"way": way, **figures(pair, mended(pair, mean)), **measured}
    if has_batch_norm(pair.model):
        yield {"way": f"{way}, not refreshed", **figures(pair, mean)}
    else:
        repaired = repair(pair.model, mean.params(0), members, pair.inputs)
        yield {"way": f"{way}, repaired", **figures(pair, single(repaired))}


def mended(pair: Pair, ensemble: Ensemble) -> Ensemble:
    """Statistics refreshed by difference from the first network, where there is batch norm."""
    if not has_batch_norm(pair.model):
        return ensemble
    return refresh(pair.model, ensemble, pair.inputs, reference=pair.ends[0])


def figures(pair: Pair, ensemble: Ensemble) -> dict[str, float]:
    outputs, targets = gather(predict(pair.model, ensemble, pair.rows.batches(500)))
    return tally([NLL, ERROR], mean_probability(outputs), targets).figures()


def distance(one: Params, other: Params) -> float:
    """Squared distance over the sum of squared lengths: 0 for equal networks, 1 for orthogonal ones."""
    names = [name for name, value in one.items() if value.is_floating_point() and "running" not in name]
    apart = sum(float((one[name].double() - other[name].double()).square().sum()) for name in names)
    length = sum(float(params[name].double().square().sum()) for params in (one, other) for name in names)
    return apart / length


if __name__ == "__main__":
    main()
