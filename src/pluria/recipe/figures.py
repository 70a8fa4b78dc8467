"""All figures of a run as one JSON value, computed from the kept outputs alone.

reference   the single full-precision network that all is held against; of several, the best on calibration rows
arms        one entry for each arm, with the pool that is best on the calibration rows: means over seeds, spread
            (standard deviation), each seed's own figures
main        the arm with the smallest calibration NLL after temperature; controls and figure rows have no say
equal_bits  for each drawn arm the best single model within its bits, under either accounting
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pluria.recipe.beyond import Beyond, beyond, differences, outputs_of
from pluria.recipe.costs import cost
from pluria.recipe.folder import RunFolder, environment
from pluria.recipe.headline import best_control, headline, warnings
from pluria.recipe.measure import Measured, measure
from pluria.recipe.outputs import Outputs
from pluria.recipe.pictures import disagreed
from pluria.recipe.plan import Job, draw, is_plain
from pluria.recipe.pools import best_pool, calibrated
from pluria.recipe.prepare import Prepared
from pluria.recipe.resolve import Rows
from pluria.sample.noise import LayerNoise, left_alone, noise
from pluria.score import paired_bootstrap

SINGLE = ("full_precision", "nearest", "gptq")
ROUNDED = ("low_precision", "compensated")
Found = Mapping[tuple[str, int], Measured]
"""What was measured of each job, by its name and seed."""


def figures(prepared: Prepared, folder: RunFolder, command: str) -> dict[str, Any]:
    """Every figure of a run."""
    recipe, rows, jobs = prepared.recipe, prepared.rows, prepared.jobs
    measured = {id: one for group in _groups(jobs) for id, one in _measured(group, rows, folder).items()}
    full = min((j for j in jobs if is_plain(j.arm)), key=lambda j: measured[j.id].figures["calibration_nll_scaled"])
    far = beyond(full, rows, folder, measured[full.id])
    arms = [_arm(group, measured, full, far, prepared, folder) for group in _groups(jobs)]
    main = min((arm for arm in arms if not arm["control"]), key=lambda arm: arm["calibration_nll_scaled"])
    rival = best_control(main, arms)
    drawn = [arm for arm in arms if arm["method"] in ROUNDED and not arm["control"]]
    equal = {arm["name"]: _equal_bits(arm, arms) for arm in drawn}
    shown = {rival["name"], *(name for best in equal.values() for name in best.values())}
    arms = [arm for arm in arms if not arm.pop("candidate") or arm["name"] in shown]
    job = next(job for job in jobs if job.name == main["name"])
    every = [draw(job.plain(), name, prepared.sources[name], [0, 1][: job.arm.members])[1] for name in job.arm.networks]
    found = {
        "title": recipe.title,
        "date": datetime.date.today().isoformat(),
        "command": command,
        "environment": environment(),
        "rows": {"calibration": len(rows.calibration), "figures": len(rows.figures), "name": rows.figures.name,
                 "twice": prepared.twice},
        "recipe": recipe.model_dump(mode="json"),
        "notes": list(prepared.notes),
        "classes": list(rows.figures.classes),
        "reference": full.name,
        "main": main["name"],
        "rival": {"name": rival["name"], **_between(main, rival, jobs, measured)},
        "arms": arms,
        "equal_bits": equal,
        "noise": [_row(row, name, job) for name, members in zip(job.arm.networks, every, strict=True)
                  for row in noise(members)],
        "left_alone": [name for members in every for name in left_alone(members)],
        "disagreed": disagreed(rows.figures, outputs_of(job, folder, "figures")),
    }  # fmt: skip
    return found | {"headline": headline(found), "warnings": warnings(found)}


def _row(row: LayerNoise, network: str, job: Job) -> dict[str, Any]:
    """A tensor's noise as plain data; of several networks the name says which."""
    name = row.name if len(job.arm.networks) == 1 else f"{network}: {row.name}"
    return vars(row) | {"name": name, "shape": list(row.shape)}


def _measured(group: list[Job], rows: Rows, folder: RunFolder) -> dict[tuple[str, int], Measured]:
    """What is measured of an arm with each of its seeds, all under its pool, or the one that is best over them."""

    def outputs(job: Job, name: str, targets: Tensor) -> Outputs:
        return Outputs.of(outputs_of(job, folder, name), targets)

    calibration = {job.id: outputs(job, "calibration", rows.calibration.targets) for job in group}
    pool = group[0].arm.pool or best_pool([calibrated(one) for one in calibration.values()])
    return {job.id: measure(calibration[job.id], outputs(job, "figures", rows.figures.targets), pool) for job in group}


def _groups(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs of one arm together, in order."""
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        groups.setdefault(job.name, []).append(job)
    return list(groups.values())


def _arm(
    group: list[Job], measured: Found, full: Job, far: Beyond, prepared: Prepared, folder: RunFolder
) -> dict[str, Any]:
    job, seeds = group[0], [measured[job.id].figures for job in group]
    arm: dict[str, Any] = {
        "name": job.name,
        "control": job.control,
        "candidate": job.candidate,
        "method": job.arm.method,
        "networks": list(job.arm.networks),
        "options": job.arm.options,
        "members": job.arm.members,
        "refresh": job.arm.refresh,
        "views": list(job.arm.views),
        "seeds": [one.seed for one in group],
        "pool": measured[job.id].answer.pool,
        "reliability": seeds[0]["reliability"],
        "reliability_scaled": seeds[0]["reliability_scaled"],
    }
    averaged = {k: v for k, v in seeds[0].items() if not k.startswith("reliability")}
    arm |= {name: _over([seed[name] for seed in seeds], _mean) for name in averaged}
    arm["cost"] = cost(job, prepared.sources, folder, asked=arm.get("asked"))
    found = [beyond(one, prepared.rows, folder, measured[one.id]) for one in group]
    arm["difference"] = _difference([measured[one.id] for one in group], measured[full.id]) | differences(found, far)
    names = ("scores", "scaled", "diversity", "joint")
    arm["spread"] = {name: _over([seed[name] for seed in seeds], _deviation) for name in names}
    for name in found[0].figures:
        arm[name] = _over([one.figures[name] for one in found], _mean)
        arm["spread"][name] = _over([one.figures[name] for one in found], _deviation)
    return arm


def _difference(several: list[Measured], reference: Measured) -> dict[str, Any]:
    """NLL minus that of full precision on the same rows, with paired bootstrap intervals; mean over seeds."""
    found: dict[str, Any] = {}
    for name in ("nll", "nll_scaled"):
        own = torch.stack([getattr(one, name) for one in several]).mean(0)
        band = paired_bootstrap(own, getattr(reference, name), seed=0)
        found[name] = {"estimate": band.estimate, "low": band.low, "high": band.high, "level": band.level}
    return found


def _between(main: dict[str, Any], rival: dict[str, Any], jobs: Sequence[Job], measured: Found) -> dict[str, Any]:
    """NLL after temperature of the main arm minus that of its best control, with a paired interval."""
    both = [[measured[job.id].nll_scaled for job in jobs if job.name == arm["name"]] for arm in (main, rival)]
    band = paired_bootstrap(torch.stack(both[0]).mean(0), torch.stack(both[1]).mean(0), seed=0)
    return {"estimate": band.estimate, "low": band.low, "high": band.high, "level": band.level}


def _equal_bits(arm: dict[str, Any], arms: list[dict[str, Any]]) -> dict[str, str]:
    """The single model with the smallest calibration NLL (after temperature) within the arm's bits, two accountings."""
    best: dict[str, str] = {}
    singles = [one for one in arms if one["method"] in SINGLE and one["cost"]["forwards"] == 1]
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
