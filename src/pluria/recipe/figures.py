"""All figures of a run as one JSON value, computed from the kept outputs alone.

arms        one entry for each arm: means over seeds, spread (standard deviation), each seed's own figures
main        the arm with the smallest calibration NLL after temperature; controls and figure rows have no say
equal_bits  for each drawn arm the best single model within its bits, under either accounting
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from pluria.core.ensemble import Ensemble
from pluria.recipe.folder import RunFolder, environment
from pluria.recipe.headline import best_control, headline, warnings
from pluria.recipe.measure import Measured, Outputs, measure
from pluria.recipe.pictures import disagreed
from pluria.recipe.plan import FULL, Job, draw
from pluria.recipe.resolve import Rows
from pluria.recipe.schema import Recipe
from pluria.sample.noise import left_alone, noise
from pluria.score import paired_bootstrap


def figures(
    recipe: Recipe,
    model: nn.Module,
    rows: Rows,
    jobs: list[Job],
    folder: RunFolder,
    command: str,
    notes: list[str],
) -> dict[str, Any]:
    """Every figure of a run."""
    measured = {job.slug: _measure(job, rows, folder) for job in jobs}
    reference = measured[next(job.slug for job in jobs if job.name == FULL)]
    arms = [_arm(group, measured, reference, model, folder) for group in _groups(jobs)]
    main = min((arm for arm in arms if not arm["control"]), key=lambda arm: arm["calibration_nll_scaled"])
    rival = best_control(main, arms)
    equal = {arm["name"]: _equal_bits(arm, arms) for arm in arms if arm["method"] == "low_precision"}
    shown = {rival["name"], *(name for best in equal.values() for name in best.values())}
    arms = [arm for arm in arms if not arm.pop("candidate") or arm["name"] in shown]
    job = next(job for job in jobs if job.name == main["name"])
    members = draw(job.plain(), model, [], [0])[1]
    classes = rows.figures.classes
    found = {
        "title": recipe.title,
        "date": datetime.date.today().isoformat(),
        "command": command,
        "environment": environment(),
        "rows": {"calibration": len(rows.calibration), "figures": len(rows.figures), "name": rows.figures.name},
        "recipe": recipe.model_dump(mode="json"),
        "notes": notes,
        "classes": list(classes),
        "main": main["name"],
        "rival": {"name": rival["name"], **_between(main, rival, jobs, measured)},
        "arms": arms,
        "equal_bits": equal,
        "noise": [vars(row) | {"shape": list(row.shape)} for row in noise(members)],
        "left_alone": left_alone(members),
        "disagreed": disagreed(rows.figures, folder.outputs(job.slug, job.arm.members, "figures")),
    }
    return found | {"headline": headline(found), "warnings": warnings(found)}


def _measure(job: Job, rows: Rows, folder: RunFolder) -> Measured:
    parts = []
    for name, part in (("calibration", rows.calibration), ("figures", rows.figures)):
        parts.append(Outputs.of(folder.outputs(job.slug, job.arm.members, name), part.targets))
    return measure(*parts)


def _groups(jobs: list[Job]) -> list[list[Job]]:
    """Jobs of one arm together, in order."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.name, []).append(job)
    return list(groups.values())


def _arm(
    group: list[Job], measured: dict[str, Measured], reference: Measured, model: nn.Module, folder: RunFolder
) -> dict[str, Any]:
    job, seeds = group[0], [measured[job.slug].figures for job in group]
    ensemble = draw(job.plain(), model, [], list(range(job.arm.members)))[1]
    arm: dict[str, Any] = {
        "name": job.name,
        "control": job.control,
        "candidate": job.candidate,
        "method": job.arm.method,
        "options": job.arm.options,
        "members": job.arm.members,
        "refresh": job.arm.refresh,
        "views": list(job.arm.views),
        "seeds": [one.seed for one in group],
        "cost": _cost(job, ensemble, folder),
        "difference": _difference([measured[one.slug] for one in group], reference),
        "reliability": seeds[0]["reliability"],
        "reliability_scaled": seeds[0]["reliability_scaled"],
    }
    averaged = {k: v for k, v in seeds[0].items() if not k.startswith("reliability")}
    arm |= {name: _over([seed[name] for seed in seeds], _mean) for name in averaged}
    names = ("scores", "scaled", "diversity")
    return arm | {"spread": {name: _over([seed[name] for seed in seeds], _deviation) for name in names}}


def _cost(job: Job, ensemble: Ensemble, folder: RunFolder) -> dict[str, Any]:
    """Forwards for each example, seconds for all rows, and bits for each weight and in all."""
    bits, seconds = ensemble.bits(), folder.seconds(job.slug, job.arm.members)
    single = job.arm.method in ("full_precision", "nearest")
    count = sum(family.shape.numel() for family in {id(f): f for f in ensemble.families.values()}.values())
    held = ensemble.first(1).bits() if single else bits
    # Refreshed statistics are kept one by one; the first copy is counted already.
    more = _statistics(ensemble) * (job.arm.members - 1) if job.arm.refresh and not single else 0
    return {
        "forwards": job.arm.members,
        "seconds": seconds,
        "backward_passes": 0,
        "bits_file": held.file + more,
        "bits_members": held.members + more,
        "bits_planes": held.planes + more,
        "parameters": count,
    }


def _statistics(ensemble: Ensemble) -> int:
    """Bits of one copy of the running statistics of batch norm."""
    names = ("running_mean", "running_var")
    families = (family for name, family in ensemble.families.items() if name.endswith(names))
    return sum(family.bits(ensemble.members[:1]).members for family in families)


def _difference(several: list[Measured], reference: Measured) -> dict[str, Any]:
    """NLL minus that of full precision on the same rows, with paired bootstrap intervals; mean over seeds."""
    found: dict[str, Any] = {}
    for name in ("nll", "nll_scaled"):
        own = torch.stack([getattr(one, name) for one in several]).mean(0)
        band = paired_bootstrap(own, getattr(reference, name), seed=0)
        found[name] = {"estimate": band.estimate, "low": band.low, "high": band.high, "level": band.level}
    return found


def _between(
    main: dict[str, Any], rival: dict[str, Any], jobs: list[Job], measured: dict[str, Measured]
) -> dict[str, Any]:
    """NLL after temperature of the main arm minus that of its best control, with a paired interval."""
    both = [[measured[job.slug].nll_scaled for job in jobs if job.name == arm["name"]] for arm in (main, rival)]
    band = paired_bootstrap(torch.stack(both[0]).mean(0), torch.stack(both[1]).mean(0), seed=0)
    return {"estimate": band.estimate, "low": band.low, "high": band.high, "level": band.level}


def _equal_bits(arm: dict[str, Any], arms: list[dict[str, Any]]) -> dict[str, str]:
    """The single model with the smallest calibration NLL (after temperature) within the arm's bits, two accountings."""
    best: dict[str, str] = {}
    singles = [one for one in arms if one["method"] in ("full_precision", "nearest") and one["members"] == 1]
    for accounting in ("bits_members", "bits_planes"):
        within = [
            one
            for one in singles
            if one["cost"]["bits_members"] <= arm["cost"][accounting] and one["refresh"] in (False, arm["refresh"])
        ]
        if within:
            best[accounting] = min(within, key=lambda one: one["calibration_nll_scaled"])["name"]
    return best


def _over(several: list[Any], reduce: Callable[[list[float]], float]) -> Any:
    """The same structure with numbers reduced over seeds."""
    head = several[0]
    if isinstance(head, dict):
        return {key: _over([one[key] for one in several if key in one], reduce) for key in head}
    if isinstance(head, list):
        return [_over(list(items), reduce) for items in zip(*several, strict=True)]
    return reduce([float(x) for x in several]) if isinstance(head, float) else head


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def _deviation(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).std()) if len(values) > 1 else 0.0
