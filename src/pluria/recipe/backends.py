"""Which back end a run predicts with: what the recipe names, or what was chosen once and is kept in the run folder.

backends.json   {network and arm: {backend, batch, tried}}   so that a run that goes on repeats the bits
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from pluria.core.ensemble import Ensemble
from pluria.predict import Choice, choose_backend
from pluria.predict.backends import Name
from pluria.recipe.folder import CHOSEN, RunFolder
from pluria.recipe.plan import Job
from pluria.recipe.resolve import device_of
from pluria.recipe.schema import Recipe
from pluria.zoo.dataset import Dataset
from pluria.zoo.views import view


def settled(
    recipe: Recipe,
    folder: RunFolder,
    place: str,
    job: Job,
    rows: Mapping[str, Dataset],
    draw: Callable[[], tuple[nn.Module, Ensemble]],
) -> Name | Choice:
    """The back end of the members at one place; chosen on the first batch of the first part where nothing is kept."""
    if recipe.backend != "auto":
        return recipe.backend
    held = folder.read(CHOSEN) or {}
    if place not in held:
        model, ensemble = draw()
        batches = next(iter(rows.values())).batches(recipe.batch)
        views = [view(name) for name in job.arm.views]
        choice = choose_backend(model, ensemble, batches, views=views, device=device_of(recipe.device))
        held[place] = {"backend": choice.backend, "batch": choice.batch, "tried": list(choice.tried)}
        folder.write(CHOSEN, held)
    return Choice(held[place]["backend"], held[place]["batch"])
