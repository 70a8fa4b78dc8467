"""Cascades over real members: fitted on 5,000 images, judged on 5,000 others.

    python -m experiments.cascade.run out/cascade [--out experiments/cascade/figures.json]

Reads what `pluria run experiments/cascade/recipe.yaml --out out/cascade` has kept, writes the figures and prints the
tables of README.md. Order, pool and windows are chosen on the images that calibrate, nothing on the others.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from experiments.cascade.members import NETWORKS, Set, kept, targets
from experiments.cascade.tables import tables
from torch import Tensor

from pluria.pool import Cascade, Temperature, fit_cascade, fit_temperature, mean_logit, mean_probability
from pluria.recipe.folder import environment
from pluria.score import error, fpr_at, max_probability, nll, paired_bootstrap, risk_coverage

POOLS = {"mean_logit": mean_logit, "mean_probability": mean_probability}
KEEP = (0.95, 0.97)
"""What is asked for on the images of the fit: the bar itself, and a little more."""
DRAWS = 1000
RISK, COVERAGE, PASS, WIDTH = 0.02, 0.9, 0.95, 0.1


@dataclass(frozen=True, eq=False)
class Judged:
    """A rule on the figure rows: NLL after a temperature, errors, and who was asked."""

    nll: Tensor
    wrong: Tensor
    asked: Tensor

    def cost(self, macs: Sequence[float]) -> dict[str, float]:
        shares = self.asked.double().mean(1)
        work = torch.tensor(macs, dtype=torch.float64)
        return {
            "forwards": float(shares.sum()),
            "share of forwards": float(shares.mean()),
            "MMACs": float(shares @ work),
            "share of MACs": float(shares @ work / work.sum()),
        }


def judged(rule: Cascade, held: Set, y: dict[str, Tensor]) -> Judged:
    """A cascade and its temperature on the figure rows."""
    scale = fit_temperature(rule(held.logits["calibration"].double()), y["calibration"])
    logits = held.logits["figures"]
    answers = scale(rule(logits.double()))
    return Judged(nll(answers, y["figures"]), error(answers, y["figures"]), rule.asked(logits))


def fixed(held: Set, pool: str, *, every: bool) -> Cascade:
    """All members of every example, or the first alone."""
    count, classes = len(held.names), held.logits["figures"].shape[-1]
    window = (None, None) if every else None
    return Cascade(tuple((i,) for i in range(count)), (window,) * (count - 1), classes, held.macs, pool)


def calibrated(rule: Cascade, held: Set, y: dict[str, Tensor]) -> float:
    """NLL after temperature on the images of the fit."""
    answers = rule(held.logits["calibration"].double())
    return float(nll(fit_temperature(answers, y["calibration"])(answers), y["calibration"]).mean())


def best_pool(held: Set, y: dict[str, Tensor]) -> str:
    """The pool of all members that is better after a temperature, on the images of the fit."""
    return min(POOLS, key=lambda pool: calibrated(fixed(held, pool, every=True), held, y))


def best_single(held: Set, y: dict[str, Tensor]) -> tuple[str, Judged]:
    """The member that is best after a temperature, on the images of the fit."""
    alone = [held.take([i]) for i in range(len(held.names))]
    rules = [fixed(one, "mean_logit", every=True) for one in alone]
    losses = [calibrated(rule, one, y) for rule, one in zip(rules, alone, strict=True)]
    best = min(range(len(losses)), key=losses.__getitem__)
    return held.names[best], judged(rules[best], alone[best], y)


def band(one: Tensor, other: Tensor) -> list[float]:
    found = paired_bootstrap(one, other, seed=0)
    return [found.estimate, found.low, found.high]


def kept_share(start: Tensor, cascade: Tensor, whole: Tensor) -> list[float]:
    """Share of the gain from `start` to `whole` that the cascade keeps, with its bootstrap interval over rows."""
    generator = torch.Generator().manual_seed(0)
    losses = torch.stack([start, cascade, whole], 1).double()
    picks = torch.stack([losses[torch.randint(len(losses), (len(losses),), generator=generator)].mean(0)
                         for _ in range(DRAWS)])  # fmt: skip
    shares = (picks[:, 0] - picks[:, 1]) / (picks[:, 0] - picks[:, 2])
    mean = losses.mean(0)
    low, high = shares.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return [float((mean[0] - mean[1]) / (mean[0] - mean[2])), low, high]


def compared(held: Set, orders: dict[str, Sequence[int]], y: dict[str, Tensor]) -> dict[str, Any]:
    """Asking all, and cascades that keep a share of its gain, for a cost in forwards and in MACs."""
    pool = best_pool(held, y)
    whole = judged(fixed(held, pool, every=True), held, y)
    name, single = best_single(held, y)
    found: dict[str, Any] = {
        "members": list(held.names), "macs": list(held.macs), "pool": pool,
        "whole": {"nll": float(whole.nll.mean()), "error": float(whole.wrong.mean()), **whole.cost(held.macs)},
        "best single": {"name": name, "nll": float(single.nll.mean()), "error": float(single.wrong.mean())},
        "whole minus best single": band(whole.nll, single.nll),
        "cascades": [],
    }  # fmt: skip
    for unit in ("forwards", "MMACs"):
        for keep in KEEP:
            found["cascades"].append(chosen(held, orders, y, pool, unit, keep, whole, single))
    return found


def chosen(
    held: Set,
    orders: dict[str, Sequence[int]],
    y: dict[str, Tensor],
    pool: str,
    unit: str,
    keep: float,
    whole: Judged,
    single: Judged,
) -> dict[str, Any]:
    """The order whose cascade is cheapest on the images of the fit, and what it does on the others."""
    fits = {}
    for name, order in orders.items():
        own = held.take(order)
        costs = own.macs if unit == "MMACs" else [1.0] * len(order)
        rule = fit_cascade(own.logits["calibration"], y["calibration"], keep=keep, pool=pool, costs=costs, unit=unit)
        fits[name] = (rule.spent(rule.asked(own.logits["calibration"])).share, rule, own)
    name = min(fits, key=lambda one: fits[one][0])
    _, rule, own = fits[name]
    done, start = judged(rule, own, y), judged(fixed(own, pool, every=False), own, y)
    return {
        "unit": unit, "keep": keep, "order": name, "explained": rule.explain(),
        "first": {"nll": float(start.nll.mean()), "error": float(start.wrong.mean())},
        "nll": float(done.nll.mean()), "error": float(done.wrong.mean()), **done.cost(own.macs),
        "whole minus first": band(whole.nll, start.nll),
        "cascade minus whole": band(done.nll, whole.nll),
        "error minus whole": band(done.wrong, whole.wrong),
        "kept over first": kept_share(start.nll, done.nll, whole.nll),
        "kept over best single": kept_share(single.nll, done.nll, whole.nll),
    }  # fmt: skip


def equal(held: Set, order: Sequence[int], y: dict[str, Tensor], task: str) -> list[dict[str, Any]]:
    """For the first k members asked of all: the cascade over all members that is as good on the images of the fit."""
    own, classes, rows = held.take(order), y["calibration"], []
    logits, pool = own.logits["calibration"], best_pool(held, y)

    def figure(k: int) -> float:
        some = own.take(range(k))
        answers = fixed(some, pool, every=True)(some.logits["calibration"].double())
        scale = fit_temperature(answers, classes) if task == "nll" else Temperature(1.0)
        return float({"nll": nll, "error": error}[task](scale(answers), classes).mean())

    first, last = figure(1), figure(len(order))
    for k in range(2, len(order) + 1):
        keep = (first - figure(k)) / (first - last)
        some = own.take(range(k))
        plain = judged(fixed(some, pool, every=True), some, y)
        row = {"k": k, "nll": float(plain.nll.mean()), "error": float(plain.wrong.mean()), **plain.cost(some.macs)}
        if 0 < keep <= 1:
            rule = fit_cascade(logits, classes, task=task, keep=keep, pool=pool, costs=own.macs, unit="MMACs")
            done = judged(rule, own, y)
            gap = band(done.nll, plain.nll) if task == "nll" else band(done.wrong, plain.wrong)
            row["cascade"] = {"nll": float(done.nll.mean()), "error": float(done.wrong.mean()), "gap": gap,
                              **done.cost(own.macs)}  # fmt: skip
        rows.append(row)
    return rows


def decisions(held: Set, y: dict[str, Tensor]) -> dict[str, Any]:
    """Selective prediction and unknown images: one member, all, a window, and a threshold of the same cost."""
    count = len(held.names)
    shape: dict[str, Any] = {"stages": [[0], list(range(1, count))], "pool": best_pool(held, y), "costs": held.macs}
    logits, classes = held.logits["calibration"], y["calibration"]
    found: dict[str, Any] = {}
    for task, at in (("coverage", RISK), ("risk", COVERAGE), ("outside", PASS)):
        window = fit_cascade(logits, classes, task=task, at=at, width=WIDTH, **shape)
        share = window.spent(window.asked(logits)).share
        rules = {
            "first member": fixed(held, shape["pool"], every=False),
            "all members": fixed(held, shape["pool"], every=True),
            "window": window,
            "threshold at that cost": lowest(held, shape, share),
        }
        found[task] = {name: decided(rule, held, y) for name, rule in rules.items()}
    return found


def lowest(held: Set, shape: dict[str, Any], share: float) -> Cascade:
    """The least certain examples go on, as many as cost that share on the images of the fit."""
    first = held.macs[0] / sum(held.macs)
    going = (share - first) / (1 - first)
    begin = Cascade(
        tuple(map(tuple, shape["stages"])), (None,), held.logits["figures"].shape[-1], held.macs, shape["pool"]
    )
    cut = float(begin.scored(0, held.logits["calibration"]).quantile(1 - going))
    return Cascade(begin.stages, ((cut, None),), begin.classes, begin.costs, begin.pool)


def decided(rule: Cascade, held: Set, y: dict[str, Tensor]) -> dict[str, float]:
    """What acceptance by the largest probability is worth, and its cost, on the figure rows and on unknown images."""
    answers = {part: rule(logits.double()) for part, logits in held.logits.items() if part != "calibration"}
    doubt = {part: max_probability(answer) for part, answer in answers.items()}
    curve = risk_coverage(doubt["figures"], error(answers["figures"], y["figures"]))
    made = {
        "coverage": curve.coverage_at(RISK), "risk": curve.risk_at(COVERAGE),
        "error": float(error(answers["figures"], y["figures"]).mean()),
        "share": rule.spent(rule.asked(held.logits["figures"])).share,
    }  # fmt: skip
    for part in ("outside-CIFAR-100", "outside-MNIST"):
        sure = -torch.cat([doubt["figures"], doubt[part]])
        known = torch.arange(len(sure)) < len(doubt["figures"])
        made[f"FPR {part.removeprefix('outside-')}"] = fpr_at(sure, known, tpr=PASS)
        made[f"share {part.removeprefix('outside-')}"] = rule.spent(rule.asked(held.logits[part])).share
    return made


def sets(folder: Path) -> dict[str, tuple[list[Set], dict[str, Sequence[int]]]]:
    """Every set of members with its seeds, and the orders to choose from."""
    views = kept(folder, "int-4-gptq-4-views", NETWORKS, 4)
    pairs = [0, 1, 4, 5, 8, 9]
    alone = kept(folder, "int-4-gptq-8-views", NETWORKS[:1], 8)
    three = {"20, 32, 56": (0, 1, 2), "20, 56, 32": (0, 2, 1), "32, 56, 20": (1, 2, 0), "56, 32, 20": (2, 1, 0)}
    six = {
        "network by network": range(6), "view by view": (0, 2, 4, 1, 3, 5), "56 last": (0, 2, 1, 3, 4, 5),
        "20, 56, 32, view by view": (0, 4, 2, 1, 5, 3),
    }  # fmt: skip
    twelve = {"network by network": range(12), "view by view": tuple(n * 4 + v for v in range(4) for n in range(3))}
    found = {
        "ResNet-20, -32, -56": ([views.take([0, 4, 8])], three),
        "the three × 2 views": ([views.take(pairs)], six),
        "the three × 4 views": ([views], twelve),
        "ResNet-20 × 8 views": ([alone], {"in order": range(8)}),
    }
    drawn = [seed for seed in range(3) if whole(folder, "int-4-compensated-2-views", NETWORKS, seed, 2)]
    if drawn:
        each = [kept(folder, "int-4-compensated-2-views", NETWORKS, 2, seed=seed) for seed in drawn]
        found["drawn, the three × 2 views"] = (each, six)
    drawn = [seed for seed in range(3) if whole(folder, "int-4-compensated-8-views", NETWORKS[:1], seed, 8)]
    if drawn:
        each = [kept(folder, "int-4-compensated-8-views", NETWORKS[:1], 8, seed=seed) for seed in drawn]
        found["drawn, ResNet-20 × 8 views"] = (each, {"in order": range(8)})
    return found


def whole(folder: Path, arm: str, networks: Sequence[str], seed: int, members: int) -> bool:
    """Whether the run has got so far."""
    places = [p for name in networks for p in (folder / "predictions" / name).glob(f"{arm}-*-seed{seed}")]
    return len(places) == len(networks) and all(
        len(list((place / "outside-MNIST").glob("*.safetensors"))) >= members for place in places
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "figures.json")
    given = parser.parse_args()
    torch.set_num_threads(1)
    y, every = targets(), sets(given.folder)
    about = environment() | {"date": datetime.now(UTC).date().isoformat()}
    found: dict[str, Any] = {"about": about, "compared": {}}
    for name, (seeds, orders) in every.items():
        found["compared"][name] = [compared(held, orders, y) for held in seeds]
        print(name, flush=True)
    three, alone = every["ResNet-20, -32, -56"][0][0], every["ResNet-20 × 8 views"][0][0]
    six = every["the three × 2 views"][0][0]
    found["equal"] = {
        f"{name}, {task}": equal(held, order, y, task)
        for name, held, order in (
            ("ResNet-20, -32, -56", three, (0, 1, 2)), ("the three × 2 views", six, range(6)),
            ("ResNet-20 × 8 views", alone, range(8)),
        )
        for task in ("nll", "error")
    }  # fmt: skip
    found["decisions"] = {"ResNet-20, -32, -56": decisions(three, y), "ResNet-20 × 8 views": decisions(alone, y)}
    given.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(tables(found))


if __name__ == "__main__":
    main()
