"""Cascades over real members: fitted on 5,000 images, judged on 5,000 others.

    python -m experiments.cascade.run out/cascade [--out experiments/cascade/figures.json]

Reads what `pluria run experiments/cascade/recipe.yaml --out out/cascade` has kept, writes the figures and prints the
tables of README.md. Order, pool and windows are chosen on the images that calibrate, nothing on the others. What an
earlier run has written is not computed again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from experiments.cascade.judged import Judged, band, best_pool, best_single, fixed, judged, kept_share
from experiments.cascade.members import NETWORKS, Set, kept, targets
from experiments.cascade.tables import tables
from torch import Tensor

from pluria.pool import Cascade, Temperature, fit_cascade, fit_temperature
from pluria.recipe.folder import environment
from pluria.score import error, fpr_at, max_probability, nll, risk_coverage

KEEP = (0.95, 0.97, 0.99)
"""What is asked for on the images of the fit: the bar itself, and more."""
BAR = 0.95
TASKS = {"coverage at 2 % risk": ("coverage", 0.02), "coverage at 0.5 % risk": ("coverage", 0.005),
         "risk at 70 % coverage": ("risk", 0.7), "unknown at 95 %": ("outside", 0.95)}  # fmt: skip
WIDTH = 0.1


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
    for keep in (*KEEP, None):
        found["cascades"].append(chosen(held, orders, y, pool, keep, whole, single))
    return found


def chosen(
    held: Set,
    orders: dict[str, Sequence[int]],
    y: dict[str, Tensor],
    pool: str,
    keep: float | None,
    whole: Judged,
    single: Judged,
) -> dict[str, Any]:
    """The order whose cascade is cheapest on the images of the fit, and what it does on the others.

    `keep` None: for each order the least level that keeps the bar where halves of these images judge each other's fit.
    """
    fits = {}
    for name, order in orders.items():
        own = held.take(order)
        level = crossed(own, y, pool) if keep is None else keep
        rule = fit(own, slice(None), y, pool, level)
        fits[name] = (rule.spent(rule.asked(own.logits["calibration"])).share, rule, own, level)
    name = min(fits, key=lambda one: fits[one][0])
    _, rule, own, level = fits[name]
    done, start = judged(rule, own, y), judged(fixed(own, pool, every=False), own, y)
    return {
        "keep": keep, "level": level, "order": name, "explained": rule.explain(),
        "first": {"nll": float(start.nll.mean()), "error": float(start.wrong.mean())},
        "nll": float(done.nll.mean()), "error": float(done.wrong.mean()), **done.cost(own.macs),
        "whole minus first": band(whole.nll, start.nll),
        "cascade minus whole": band(done.nll, whole.nll),
        "error minus whole": band(done.wrong, whole.wrong),
        "kept over first": kept_share(start.nll, done.nll, whole.nll),
        "kept over best single": kept_share(single.nll, done.nll, whole.nll),
    }  # fmt: skip


def fit(own: Set, rows: Any, y: dict[str, Tensor], pool: str, keep: float) -> Cascade:
    """A cascade on some of the images of the fit, for a cost in MACs."""
    logits, classes = own.logits["calibration"][:, rows], y["calibration"][rows]
    return fit_cascade(logits, classes, keep=keep, pool=pool, costs=own.macs, unit="MMACs")


def crossed(own: Set, y: dict[str, Tensor], pool: str) -> float:
    """The least level that keeps the bar among the images of the fit, each half judged by what the other fits."""
    classes = y["calibration"]
    halves = torch.empty(len(classes), dtype=torch.bool)
    halves[classes.argsort(stable=True)] = torch.arange(len(classes)) % 2 == 0
    ends = [fixed(own, pool, every=every) for every in (False, True)]

    def losses(rule: Cascade, rows: Tensor) -> Tensor:
        answers = rule(own.logits["calibration"].double())
        scale = fit_temperature(answers[~rows], classes[~rows])
        return nll(scale(answers[rows]), classes[rows])

    first, last = (torch.cat([losses(end, rows) for rows in (halves, ~halves)]).mean() for end in ends)
    for level in KEEP:
        own_losses = [losses(fit(own, ~rows, y, pool, level), rows) for rows in (halves, ~halves)]
        if (first - torch.cat(own_losses).mean()) / (first - last) >= BAR:
            return level
    return 1.0


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
    count, pool = len(held.names), best_pool(held, y)
    shape: dict[str, Any] = {"stages": [[0], list(range(1, count))], "pool": pool, "costs": held.macs}
    logits, classes = held.logits["calibration"], y["calibration"]
    found: dict[str, Any] = {"any": {
        "first member": decided(fixed(held, pool, every=False), held, y),
        "all members": decided(fixed(held, pool, every=True), held, y),
    }}  # fmt: skip
    for name, (task, at) in TASKS.items():
        window = fit_cascade(logits, classes, task=task, at=at, width=WIDTH, **shape)
        asked = float(window.asked(logits)[1].double().mean())
        found[name] = {
            "window": decided(window, held, y),
            "threshold at that cost": decided(lowest(held, shape, asked), held, y),
        }
    return found


def lowest(held: Set, shape: dict[str, Any], share: float) -> Cascade:
    """The least certain examples go on, that share of the images of the fit."""
    stages, classes = tuple(map(tuple, shape["stages"])), held.logits["figures"].shape[-1]
    begin = Cascade(stages, (None,), classes, held.macs, shape["pool"])
    cut = float(begin.scored(0, held.logits["calibration"]).quantile(1 - share))
    return Cascade(begin.stages, ((cut, None),), begin.classes, begin.costs, begin.pool)


def decided(rule: Cascade, held: Set, y: dict[str, Tensor]) -> dict[str, float]:
    """What acceptance by the largest probability is worth, and its cost, on the figure rows and on unknown images."""
    answers = {part: rule(logits.double()) for part, logits in held.logits.items() if part != "calibration"}
    doubt = {part: max_probability(answer) for part, answer in answers.items()}
    wrong = error(answers["figures"], y["figures"])
    curve = risk_coverage(doubt["figures"], wrong)
    made = {
        "coverage at 2 % risk": curve.coverage_at(0.02), "coverage at 0.5 % risk": curve.coverage_at(0.005),
        "risk at 70 % coverage": curve.risk_at(0.7), "error": float(wrong.mean()),
        "share": rule.spent(rule.asked(held.logits["figures"])).share,
    }  # fmt: skip
    for part in ("outside-CIFAR-100", "outside-MNIST"):
        sure = -torch.cat([doubt["figures"], doubt[part]])
        known = torch.arange(len(sure)) < len(doubt["figures"])
        made[f"FPR {part.removeprefix('outside-')}"] = fpr_at(sure, known, tpr=0.95)
        made[f"share {part.removeprefix('outside-')}"] = rule.spent(rule.asked(held.logits[part])).share
    return made


def sets(folder: Path) -> dict[str, tuple[list[Set], dict[str, Sequence[int]]]]:
    """Every set of members with its seeds, and the orders to choose from."""
    views = kept(folder, "int-4-gptq-4-views", NETWORKS, 4)
    pairs = [0, 1, 4, 5, 8, 9]
    alone = kept(folder, "int-4-gptq-8-views", NETWORKS[:1], 8)
    three = {"20, 32, 56": (0, 1, 2), "20, 56, 32": (0, 2, 1)}
    six = {"20, 32, 56, then flips": (0, 2, 4, 1, 3, 5), "20, 56, 32, then flips": (0, 4, 2, 1, 5, 3)}
    twelve = {"20, 32, 56, then views": tuple(n * 4 + v for v in range(4) for n in range(3))}
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


def swapped(held: Set) -> Set:
    """The images that gave the figures fit, and those that fitted give the figures."""
    turned = {**held.logits, "calibration": held.logits["figures"], "figures": held.logits["calibration"]}
    return Set(held.names, held.macs, turned)


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
    parts: dict[str, Callable[[], Any]] = {
        f"compared: {name}": partial(lambda seeds, orders: [compared(held, orders, y) for held in seeds], *one)
        for name, one in every.items()
    }
    turned = {"calibration": y["figures"], "figures": y["calibration"]}
    for name in list(every)[:2]:
        (held,), orders = every[name]
        parts[f"compared: {name}, halves swapped"] = partial(
            lambda *one: [compared(*one)], swapped(held), orders, turned
        )
    three, six, _, alone = (seeds[0] for seeds, _ in list(every.values())[:4])
    for name, held in {"ResNet-20, -32, -56": three, "ResNet-20 × 8 views": alone}.items():
        parts[f"decisions: {name}"] = partial(decisions, held, y)
    for name, held, order in (
        ("ResNet-20, -32, -56", three, (0, 1, 2)),
        ("the three × 2 views", six, (0, 2, 4, 1, 3, 5)),
        ("ResNet-20 × 8 views", alone, range(8)),
    ):
        for task in ("nll", "error"):
            parts[f"equal: {name}, {task}"] = partial(equal, held, order, y, task)
    found = {"about": environment() | {"date": datetime.now(UTC).date().isoformat()}}
    if given.out.exists():
        found |= json.loads(given.out.read_text(encoding="utf-8"))
    for name, part in parts.items():
        if name not in found:
            found[name] = part()
            given.out.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(name, flush=True)
    print(tables(found))


if __name__ == "__main__":
    main()
