"""Fine-tuning one pre-trained network several times: local, chained and star members, and members pre-trained apart.

    python experiments/transfer/run.py [--seeds 24] [--out experiments/transfer/figures.json]

Pre-trained on digits 0-4, fine-tuned on 60 images of 5-9; half of the other images of 5-9 fit a temperature, half give
the figures. Ensembles of five, and their uniform soups. Prints the tables of README.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pluria
from pluria.align import refresh
from pluria.core.ensemble import Ensemble, single
from pluria.merge import leafwise, linear
from pluria.pool import fit_temperature
from pluria.predict import gather, predict
from pluria.score import error, nll
from pluria.train import Cycle, chain, independent, local, star, train
from pluria.zoo import read

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from seeds import grow, lower, spread  # noqa: E402

MEMBERS, BATCH = 5, 20
Batch = tuple[Tensor, Tensor]


def rows(seed: int) -> tuple[Batch, Batch, Batch, Batch]:
    """Digits 0-4 to pre-train; of 5-9 60 to fine-tune, half of the rest to calibrate, half for figures."""
    data = read("digits", split="all")
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    x, y = data.normalise(data.inputs)[order].flatten(1), data.targets[order]
    before, after = y < 5, y >= 5
    new, labels = x[after], y[after] - 5
    half = 60 + (len(new) - 60) // 2
    return (x[before], y[before]), *((new[a:b], labels[a:b]) for a, b in ((0, 60), (60, half), (half, len(new))))  # type: ignore[return-value]


def fresh(seed: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        norm = [nn.BatchNorm1d(64), nn.ReLU()]
        return nn.Sequential(
            nn.Linear(64, 64), *norm, nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 5)
        )


def fitted(model: nn.Module, data: Batch, *, epochs: int, rate: float, seed: int) -> nn.Module:
    """A run with one cosine; the optimiser is new each time."""

    def epoch(number: int) -> list[Batch]:
        generator = torch.Generator().manual_seed(1000 * seed + number)
        order = torch.randperm(len(data[1]), generator=generator)
        return [(data[0][part], data[1][part]) for part in order.split(BATCH) if len(part) > 1]

    stepper = torch.optim.SGD(model.parameters(), rate, momentum=0.9, weight_decay=5e-4)
    schedule = Cycle(epochs * len(epoch(0))).scheduler(stepper)
    train(
        model, epoch, lambda m, b: F.cross_entropy(m(b[0]), b[1]), optimizer=stepper, epochs=epochs, scheduler=schedule
    )
    return model.eval()


def loss(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


def pretrained(seed: int, number: int, data: Batch) -> nn.Module:
    return fitted(fresh(100 * seed + number), data, epochs=30, rate=0.1, seed=100 * seed + number)


def arms(seed: int, before: Batch, tune: Batch) -> dict[str, tuple[nn.Module, Ensemble]]:
    base = pretrained(seed, 0, before)

    def fit(ratio: float) -> Callable[[nn.Module, int], nn.Module]:
        """The first at the ordinary rate, later ones at `ratio` times it."""
        return lambda model, number: fitted(
            model, tune, epochs=20, rate=0.05 * (ratio if number else 1.0), seed=1000 * (seed + 1) + number
        )

    def other_heads(model: nn.Module, number: int) -> nn.Module:
        with torch.no_grad():
            model[6].weight.copy_(fresh(5000 + 100 * seed + number)[6].weight)  # type: ignore[index, union-attr, arg-type]
        return fit(1.0)(model, number)

    found = {
        "local": local(base, fit(1.0), members=MEMBERS),
        "local, other heads": local(base, other_heads, members=MEMBERS),
        "SSE, rate × 4": chain(base, fit(4.0), members=MEMBERS),
        "StarSSE, rate × 4": star(base, fit(4.0), members=MEMBERS),
        "SSE, rate × 8": chain(base, fit(8.0), members=MEMBERS),
        "StarSSE, rate × 8": star(base, fit(8.0), members=MEMBERS),
        "global": independent((pretrained(seed, number, before) for number in range(MEMBERS)), fit(1.0)),
        "from scratch": independent((fresh(900 + 10 * seed + number) for number in range(MEMBERS)), fit(1.0)),
    }
    return {name: (base, ensemble) for name, ensemble in found.items()}


def judged(model: nn.Module, ensemble: Ensemble, calibration: Batch, figures: Batch) -> dict[str, float]:
    pooled = {}
    for name, batch in (("fit", calibration), ("figures", figures)):
        outputs, _ = gather(predict(model, ensemble, [batch]))
        pooled[name] = pluria.mean_probability(outputs)
    scaled = fit_temperature(pooled["fit"], calibration[1])(pooled["figures"])
    return {
        "nll": float(nll(pooled["figures"], figures[1]).mean()),
        "nll_after": float(nll(scaled, figures[1]).mean()),
        "error": float(error(pooled["figures"], figures[1]).mean()),
    }


def one(seed: int) -> dict[str, Any]:
    before, tune, calibration, figures = rows(seed)
    found: dict[str, Any] = {}
    for name, (model, ensemble) in arms(seed, before, tune).items():
        soup = refresh(model, single(leafwise(ensemble, linear())), [tune[0]], plain=True)
        found[name] = {
            "member": judged(model, ensemble.first(1), calibration, figures),
            "ensemble": judged(model, ensemble, calibration, figures),
            "soup": judged(model, soup, calibration, figures),
        }
    return found


def tables(found: dict[str, Any]) -> str:
    seeds = found["seeds"]
    lines = [
        f"{found['machine']}, {found['date']}, {len(seeds)} seeds",
        "",
        "| members | one member, error | ensemble, error | NLL | NLL after T | soup, error | NLL | NLL after T |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in seeds[0]:
        cells = [spread([s[name]["member"]["error"] for s in seeds], 1, 100) + " %"]
        for what in ("ensemble", "soup"):
            cells.append(spread([s[name][what]["error"] for s in seeds], 1, 100) + " %")
            cells += [spread([s[name][what][key] for s in seeds], 3) for key in ("nll", "nll_after")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += [
        "",
        "| comparison, NLL after T | ensembles | lower in | soups | lower in |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for one_, other in PAIRS:
        cells = []
        for what in ("ensemble", "soup"):
            gaps = [s[one_][what]["nll_after"] - s[other][what]["nll_after"] for s in seeds]
            cells += lower(gaps)
        lines.append(f"| {one_} − {other} | {' | '.join(cells)} |")
    return "\n".join(lines)


PAIRS = (
    ("SSE, rate × 4", "local"),
    ("StarSSE, rate × 4", "local"),
    ("StarSSE, rate × 4", "SSE, rate × 4"),
    ("SSE, rate × 8", "local"),
    ("StarSSE, rate × 8", "SSE, rate × 8"),
    ("local, other heads", "local"),
    ("global", "local"),
    ("from scratch", "global"),
)


if __name__ == "__main__":
    grow(__doc__, HERE / "figures.json", 24, one, tables)
