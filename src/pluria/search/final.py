"""The last look: the winner and its controls on the figure rows, which nothing has seen before.

single   the network of least loss on the calibration rows, in full precision with temperature
views    the same network behind as many views as the winner has forwards, or as many as there are
int5     the plain ensemble: stratified INT-5 members of the winner's networks, as many members

Each takes a pool (the winner its own, a control the better of two averages) and a temperature, fitted on all
calibration rows. A difference is the winner's NLL minus the control's on the same rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pluria.recipe.beyond import outputs_of
from pluria.recipe.check import check_apart
from pluria.recipe.controls import SHIFTS
from pluria.recipe.measure import scores
from pluria.recipe.outputs import Outputs
from pluria.recipe.plan import Job, is_plain, jobs
from pluria.recipe.pools import Answer, answer, best_pool, calibrated
from pluria.recipe.reading import make_recipe
from pluria.recipe.schema import Arm, Recipe
from pluria.recipe.source import Sources
from pluria.score import nll, paired_bootstrap
from pluria.search.halving import SHARES
from pluria.search.judge import Candidate, bits
from pluria.search.members import Members
from pluria.zoo.dataset import Dataset

LAST = len(SHARES) - 1


def winning_recipe(recipe: Recipe, winner: Candidate, single: Job, *, images: bool) -> Recipe:
    """The winner beside its controls, as a recipe that `pluria run` repeats."""
    arm, best = winner.job.arm, list(single.arm.networks)
    own = arm.model_dump(mode="json", exclude_defaults=True, exclude={"pool"})
    own |= {"method": arm.method, "members": arm.members, "networks": list(arm.networks), "refresh": arm.refresh}
    plain = {"method": "low_precision", "format": "int5", "refresh": False}
    arms = [
        {**own, **({"pool": winner.pool} if winner.job.size > 1 else {})},
        {**plain, "members": arm.members, "networks": list(arm.networks)},
    ]
    seen = recipe.views if recipe.views is not None else SHIFTS if images else ()
    names = tuple(dict.fromkeys(("identity", *arm.views, *seen)))[: math.ceil(winner.forwards)]
    if len(names) > 1:
        arms.append({"method": "full_precision", "networks": best, "views": list(names), "members": len(names)})
    held = recipe.model_dump(mode="json", exclude_unset=True, exclude={"arms", "pool"})
    return make_recipe({**held, "arms": arms})


def roles(final: Recipe, winner: Candidate, single: Job, sources: Sources) -> dict[str, Job]:
    """The jobs of the winning recipe by what they are for; `views` only where there are some."""
    every = jobs(final, sources, images=False)
    own, plain, *views = (_alike(every, arm) for arm in final.arms)
    found = {"winner": own, "single": single, "int5": plain}
    return found | ({"views": views[0]} if views else {})


def last_look(members: Members, winner: Candidate, parts: dict[str, Job], figures: Dataset) -> dict[str, Any]:
    """Figures of every role; DataError where the figure rows are among the calibration rows."""
    check_apart(members.rows, figures)
    for job in parts.values():
        members.keep(job, job.arm.members, LAST)
        members.keep_figures(job, figures)
    found, losses = {}, {}
    for role, job in parts.items():
        fitted = fitted_on_all(members, job, winner if role == "winner" else None)
        rows = Outputs.of(outputs_of(job, members.folder, "figures"), figures.targets)
        log_probs = rows.pooled() if fitted is None else fitted(rows)
        spent = None if fitted is None else fitted.asked(rows.logits)
        losses[role] = rows.by_example(nll(log_probs, rows.y))
        found[role] = {
            "name": job.name,
            "pool": "mean_probability" if fitted is None else fitted.pool,
            "temperature": None if fitted is None else fitted.temperature.value,
            "scores": scores(log_probs, rows.y),
            "forwards": job.size if spent is None else round(spent.members, 2),
            "bits": bits(job, members.sources),
        }
    for role, one in found.items():
        band = paired_bootstrap(losses["winner"], losses[role], seed=0)
        one["difference"] = {"estimate": band.estimate, "low": band.low, "high": band.high, "level": band.level}
    return found


def single_of(candidates: Sequence[Candidate]) -> Job:
    """The network in full precision whose scaled answers are best on the calibration rows."""
    plain = [one for one in candidates if is_plain(one.job.arm) and one.scaled]
    return min(plain, key=lambda one: one.loss).job


def fitted_on_all(members: Members, job: Job, winner: Candidate | None) -> Answer | None:
    """The winner's own answer, or a control's, fitted on all calibration rows in the order of the file.

    None where the winner is the raw mean.
    """
    if winner is not None and not winner.scaled:
        return None
    logits = members.order.restored(members.logits(job, job.arm.members, LAST))
    rows = Outputs.of(logits, members.rows.targets)
    return answer(best_pool([calibrated(rows)]) if winner is None else winner.pool, rows)


def _alike(every: Sequence[Job], arm: Arm) -> Job:
    """The job of an arm that is written out in full."""
    wanted = {name: value for name, value in arm.model_dump(mode="json").items() if name in arm.model_fields_set}
    wanted |= arm.options
    for job in every:
        held = job.arm.model_dump(mode="json")
        if all(held.get(name) == value for name, value in wanted.items()) and job.arm.pool == arm.pool:
            return replace(job, control=False)
    raise AssertionError(f"the recipe has no job for {wanted}")
