"""What a search leaves: the winning recipe, the winner's members in their smaller form, and two pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from pluria.core.ensemble import Ensemble
from pluria.pool.kinds import to_dict
from pluria.recipe.plan import Job, draw
from pluria.recipe.pools import Answer
from pluria.recipe.schema import ONLY, Recipe
from pluria.recipe.source import Sources
from pluria.store.atomic import replacing
from pluria.store.export import packed
from pluria.store.file import save
from pluria.zoo.dataset import Dataset


def keep_recipe(final: Recipe, place: Path) -> None:
    """Write the recipe of the winner and its controls."""
    text = yaml.safe_dump(final.model_dump(mode="json", exclude_unset=True), sort_keys=False, allow_unicode=True)
    with replacing(place) as file:
        file.write(text.encode())


def keep_winner(recipe: Recipe, fitted: Answer | None, job: Job, sources: Sources, rows: Dataset, place: Path) -> None:
    """Write the winner's members with what is fitted behind them. MC dropout has no members to keep."""
    if job.arm.method == "dropout":
        return
    chain = None if fitted is None else fitted.chain()
    drawn: dict[str, Ensemble] = {}
    for network in job.arm.networks:
        ensemble = draw(job, network, sources[network], list(range(job.arm.members)))[1]
        drawn[job.name if network == ONLY else f"{job.name}: {network}"] = smaller(ensemble)
    known = [
        recipe.named[network].model_dump(mode="json", include={"model", "arguments"}) for network in job.arm.networks
    ]
    about: dict[str, Any] = {
        "pool": "mean_probability" if chain is None else to_dict(chain),
        "classes": list(rows.classes),
        "inputs": {"mean": list(rows.mean), "std": list(rows.std)},
        "views": {name: list(job.arm.views) for name in drawn},
    }
    if ONLY in job.arm.networks:
        about["network"] = known[0]
    else:
        about |= {"networks": dict(zip(drawn, known, strict=True)), "together": {job.name: list(drawn)}}
    save(place, drawn, about=about)


def smaller(ensemble: Ensemble) -> Ensemble:
    """The members as they were drawn, as codes, or as bit planes, whichever file is the smallest."""
    forms = [ensemble]
    for form in ("members", "planes"):
        try:
            forms.append(packed(ensemble, form=form))
        except ValueError:
            continue
    return min(forms, key=lambda one: one.bits().file)
