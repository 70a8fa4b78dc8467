"""Search for the best ensemble within budgets: choose on the calibration rows, then look at the figure rows once.

    recipe, budget -> kinds -> looks (halving) -> candidates on all calibration rows -> winner -> figures

Writes search.json, winner.yaml, winner.pluria, bits.svg and forwards.svg. What is kept of members is used again, so a
search that was killed goes on, to the same winner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pluria.core.errors import RecipeError
from pluria.recipe.check import check_draws, check_outputs, check_views
from pluria.recipe.folder import RunFolder
from pluria.recipe.plan import Job, is_plain, jobs, wants_inputs
from pluria.recipe.prepare import Prepared, Progress, are_images, pinned, quiet
from pluria.recipe.resolve import Rows, data_rows, device_of, load_network
from pluria.recipe.schema import Recipe
from pluria.recipe.source import Drawn, Source, Sources, unlabelled
from pluria.search.files import keep_recipe, keep_winner
from pluria.search.final import fitted_on_all, last_look, roles, single_of, winning_recipe
from pluria.search.front import front, knee
from pluria.search.halving import SHARES, Look, halved
from pluria.search.judge import Candidate, bits, sized
from pluria.search.ledger import Ledger
from pluria.search.members import Members, examples
from pluria.search.order import order_of
from pluria.search.spec import Budget, arms_for

CHECKED = 4
"""Examples that the checks of one network take: two for its outputs' shape, two for its digest."""


@dataclass(frozen=True)
class Plan:
    """What is searched: rows, networks, kinds that fit the budgets, the largest ensemble, and what is held back."""

    recipe: Recipe
    rows: Rows
    sources: Sources
    kinds: tuple[Job, ...]
    largest: int
    reserve: int
    ledger: Ledger


def search(
    recipe: Recipe,
    budget: Budget,
    out: Path,
    *,
    own_arms: bool = True,
    restart: bool = False,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Search into the folder `out` and return what was found, which is also in `out/search.json`.

    own_arms   whether the recipe's arms span the space; else it is every axis that applies

    Raises RecipeError where no kind meets the budgets, naming the nearest, and where the forwards do not reach;
    CheckpointError or DataError as a run does. Figure rows are read after the winner is written down.
    """
    if recipe.threads is not None:
        torch.set_num_threads(recipe.threads)
    folder = RunFolder(out)
    plan = planned(recipe, budget, own_arms=own_arms)
    prepared = Prepared(plan.recipe, plan.sources, Rows(plan.rows.calibration, plan.rows.calibration), plan.kinds)
    folder.claim(plan.recipe, pinned(prepared), restart=restart)
    order = order_of(plan.rows.calibration.targets, SHARES)
    members = Members(plan.recipe, plan.sources, plan.rows.calibration, order, folder, plan.ledger, progress)
    looks = halved(
        members, plan.kinds, budget.pools,
        reserve=plan.reserve, most=budget.memory_bits, within=budget.inference_forwards,
    )  # fmt: skip
    winner = _best(looks[-1], budget)
    single = single_of(looks[-1].candidates)
    final = winning_recipe(plan.recipe, winner, single, images=are_images(plan.rows.calibration))
    parts = roles(final, winner, single, plan.sources)
    found = _told(plan, budget, looks, winner)
    folder.write("search.json", {**found, "figures": None})
    keep_recipe(final, out / "winner.yaml")
    fitted = fitted_on_all(members, parts["winner"], winner)
    keep_winner(plan.recipe, fitted, parts["winner"], plan.sources, plan.rows.calibration, out / "winner.pluria")
    found |= {"figures": last_look(members, winner, parts, plan.rows.figures), "ledger": _ledger(plan.ledger)}
    folder.write("search.json", found)
    return found


def _best(look: Look, budget: Budget) -> Candidate:
    """The candidate of least NLL within the budgets; of equal ones the cheaper."""
    most = budget.memory_bits
    fitting = [one for one in look.candidates if most is None or one.bits <= most]
    if not fitting:
        raise RecipeError(f"{budget.forwards:g} forwards do not reach to look at what meets {most:g} bits; give more")
    # Of views that no member sees, fewer: they change the name alone.
    return min(fitting, key=lambda one: (one.loss, one.forwards, one.bits, len(one.job.arm.views)))


def planned(recipe: Recipe, budget: Budget, *, own_arms: bool = True) -> Plan:
    """What a search will look at, checked on two rows before any heavy work."""
    device_of(recipe.device)
    if any(network.train for network in recipe.named.values()):
        raise RecipeError("a search trains nothing: give the networks' checkpoints in place of `train`")
    rows = data_rows(recipe)
    recipe = recipe if own_arms else arms_for(recipe, images=are_images(rows.calibration))
    inputs = unlabelled(rows.calibration, recipe.unlabelled_rows, recipe.batch)
    loaded = {name: load_network(spec)[0] for name, spec in recipe.named.items()}
    sources = {name: Source(model, inputs, Drawn(room=2**62)) for name, model in loaded.items()}
    ledger = Ledger(math.floor(budget.forwards * len(rows.calibration)), len(rows.calibration))
    for source in sources.values():
        ledger.spend("checks", min(CHECKED, 2 * len(rows.calibration)))
        check_outputs(source.model, rows.calibration, class_axis=recipe.class_axis)
    every = _trained(jobs(recipe, sources, images=are_images(rows.calibration)), budget)
    check_views(every, rows.calibration)
    for name in {n for job in every if wants_inputs(job.arm) for n in job.arm.networks}:
        ledger.spend("moments", examples(sources[name]))
    check_draws(every, sources)
    largest, reserve = _reserved(every, budget, rows, ledger)
    kinds = _within(every, largest, budget, sources)
    return Plan(recipe, rows, sources, tuple(kinds), largest, reserve, ledger)


def _trained(every: Sequence[Job], budget: Budget) -> list[Job]:
    """Kinds of no more networks than trainings are allowed; one network in full precision is always among them."""
    return [job for job in every if budget.trainings is None or len(job.arm.networks) <= budget.trainings]


def _reserved(every: Sequence[Job], budget: Budget, rows: Rows, ledger: Ledger) -> tuple[int, int]:
    """The most forwards for each example, and the examples held back to look at such an ensemble and its controls.

    Two controls of as many forwards go through the calibration rows, and with the winner and the single model through
    the figure rows. At most half of the forwards are held back: larger ensembles are left out.
    """

    def held(size: int) -> int:
        return 2 * size * len(rows.calibration) + (3 * size + 1) * len(rows.figures)

    largest = max(job.size for job in every)
    largest = min(largest, budget.reach or largest)
    while largest > 1 and held(largest) > ledger.limit // 2:
        largest -= 1
    singles = 3 * ledger.unit * sum(is_plain(job.arm) for job in every)
    least = ledger.rows + held(1) + singles
    if least > ledger.limit:
        raise RecipeError(
            f"{budget.forwards:g} forwards do not reach; the least that this search takes is {least / ledger.unit:.1f}"
        )
    return largest, held(largest)


def _within(every: Sequence[Job], largest: int, budget: Budget, sources: Sources) -> list[Job]:
    """Kinds cut to the largest size, without those of which not one member meets the budgets."""
    cut = [sized(job, min(job.arm.members, largest // len(job.arm.networks))) for job in every
           if len(job.arm.networks) <= largest]  # fmt: skip
    if budget.memory_bits is None:
        return cut
    sizes = {job.name: bits(sized(job, 1), sources) for job in cut}
    kept = [job for job in cut if sizes[job.name] <= budget.memory_bits or is_plain(job.arm)]
    if min(sizes.values()) > budget.memory_bits:
        near = min(sizes, key=lambda name: sizes[name])
        raise RecipeError(
            f"nothing meets {budget.memory_bits:g} bits; the nearest is one member of {near} with {sizes[near]} bits"
        )
    return kept


def _told(plan: Plan, budget: Budget, looks: Sequence[Look], winner: Candidate) -> dict[str, Any]:
    """What was searched and found, as plain data; candidates are those of the last look within the budgets."""
    most = budget.memory_bits or math.inf
    every = sorted((one for one in looks[-1].candidates if one.bits <= most), key=lambda one: one.loss)
    fronts: dict[str, Any] = {}
    for axis in ("bits", "forwards"):
        line = front(every, lambda one, axis=axis: getattr(one, axis))  # type: ignore[misc]
        bend = knee(line, lambda one, axis=axis: getattr(one, axis))  # type: ignore[misc]
        fronts[axis] = {"points": [one.plain() for one in line], "knee": None if bend is None else bend.plain()}
    return {
        "title": plan.recipe.title,
        "budget": budget.model_dump(mode="json"),
        "rows": {"calibration": len(plan.rows.calibration), "figures": len(plan.rows.figures)},
        "kinds": len(plan.kinds),
        "largest": plan.largest,
        "looks": [{"rows": look.rows, "kinds": look.kinds, "left_out": look.left_out} for look in looks],
        "winner": winner.plain(),
        "candidates": [one.plain() for one in every],
        "fronts": fronts,
        "ledger": _ledger(plan.ledger),
    }


def _ledger(ledger: Ledger) -> dict[str, Any]:
    return {
        "limit": ledger.limit / ledger.unit,
        "forwards": ledger.forwards,
        "examples": ledger.rows,
        "spent": {name: rows / ledger.unit for name, rows in ledger.spent.items()},
    }
