"""The jobs of a run: the arms the recipe asks for and the controls that apply, each with its seeds.

arm -> filled with its method's defaults, networks, with and without refresh -> one job for each seed
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Hashable
from dataclasses import dataclass, replace

from torch import nn

from pluria.align.refresh import has_batch_norm, refresh
from pluria.core.ensemble import Ensemble
from pluria.core.errors import RecipeError
from pluria.numbers.format import number_format
from pluria.numbers.key import Key
from pluria.predict.batches import call
from pluria.recipe.controls import controls_of
from pluria.recipe.named import arm_name, collects, drawn, folder_name, has_dropout, method_of, seeded
from pluria.recipe.schema import ONLY, Arm, Recipe
from pluria.recipe.source import Source, Sources


@dataclass(frozen=True)
class Job:
    """One arm with one seed. Its members are those of its first network, then those of the next."""

    name: str
    control: bool
    arm: Arm
    seed: int
    candidate: bool = False

    @property
    def id(self) -> tuple[str, int]:
        """What tells jobs apart."""
        return self.name, self.seed

    @property
    def size(self) -> int:
        """Members of all networks together."""
        return self.arm.members * len(self.arm.networks)

    def place(self, network: str) -> str:
        """The folder of one network's predictions; arms that differ in size or in company share it."""
        return f"{network}/{folder_name(self.arm)}-seed{self.seed}"

    def plain(self) -> Job:
        """The same without refresh, which changes no grid; its statistics are counted in `costs`."""
        return replace(self, arm=self.arm.model_copy(update={"refresh": False}))


def jobs(recipe: Recipe, sources: Sources, *, images: bool) -> list[Job]:
    """Every arm of the recipe with every seed, controls first; one that repeats another is left out.

    A single model that is asked for beside drawn arms is one more control. Raises RecipeError where an arm asks for
    what a network does not have, and where nothing is left to hold against full precision.
    """
    each = (full for arm in recipe.arms for one in arm.expanded() for full in completed(one, sources))
    asked = [_pooled(arm, recipe.pool) for arm in each]
    beside, several = any(drawn(arm) for arm in asked), len(sources) > 1
    controls = controls_of(recipe, asked, sources, images)
    given = ((True, _pooled(filled(arm, sources), recipe.pool), candidate) for arm, candidate in controls)
    found: dict[tuple[str, int], Job] = {}
    for control, arm, candidate in [*given, *((beside and not drawn(arm), arm, False) for arm in asked)]:
        for seed in recipe.seeds if seeded(arm) else recipe.seeds[:1]:
            at = (arm.model_dump_json(exclude={"beyond"}), seed)
            if at not in found or (found[at].candidate and not candidate):
                found[at] = Job(arm_name(arm, several), control, arm, seed, candidate)
    return _with_main(_distinct(list(found.values())), asked)


def completed(arm: Arm, sources: Sources) -> list[Arm]:
    """The arm with its defaults put in; two, without refresh and with it, where it leaves that open."""
    full, norms = filled(arm, sources), False
    _check_asked(full, sources)
    if arm.refresh is None and seeded(arm) and arm.method != "dropout":
        norms = any(has_batch_norm(sources[name].model) for name in full.networks)
    return [full, full.model_copy(update={"refresh": True})] if norms else [full]


def filled(arm: Arm, sources: Sources) -> Arm:
    """The arm with its method's defaults put in, so that arms are equal where they do the same.

    A single model has one member, or one for each view, unless the recipe says otherwise.
    """
    defaults = {n: p.default for n, p in method_of(arm).options().items() if p.default is not p.empty}
    size = {} if drawn(arm) or "members" in arm.model_fields_set else {"members": len(arm.views)}
    if arm.method == "collected" and "members" not in arm.model_fields_set:
        size = {"members": min(len(_collected(sources, name)) for name in arm.networks or sources)}
    asked = {"networks": arm.networks or tuple(sources), "refresh": bool(arm.refresh)}
    given = {**defaults, **arm.model_dump(exclude_unset=True), **size, **asked}
    if isinstance(given.get("format"), str):
        given["format"] = _one_name(given["format"])
    return Arm.model_validate(given)


def draw(job: Job, network: str, source: Source, positions: list[int]) -> tuple[nn.Module, Ensemble]:
    """The network to run and its members at these positions of its own, refreshed where the arm says so.

    What takes time, feedback and refresh, is kept with the source while there is room. Raises RecipeError.
    """
    arm, feedback = job.arm, wants_inputs(job.arm)
    name = drawn_name(job, network)
    if (feedback or arm.refresh) and (held := source.drawn.find(name, positions)) is not None:
        return held
    try:
        if arm.refresh:
            model, ensemble = _refreshed(job, network, source, positions)
        else:
            model, ensemble = _plain(job, network, source, positions, feedback)
    except (ValueError, TypeError) as error:
        raise RecipeError(f"{job.name}: {error}") from None
    if feedback or arm.refresh:
        source.drawn.keep(name, positions, (model, ensemble))
    return model, ensemble


def drawn_name(job: Job, network: str) -> tuple[Hashable, ...]:
    """All that a member's tensors depend on besides its number; views and pools come later."""
    arm = job.arm
    return arm.method, json.dumps(arm.options, sort_keys=True), bool(arm.refresh), network, job.seed


def _plain(job: Job, network: str, source: Source, positions: list[int], feedback: bool) -> tuple[nn.Module, Ensemble]:
    options = dict(job.arm.options) | {"members": max(positions) + 1, "key": key_of(job, network)}
    options |= {"inputs": source.moments} if feedback else {}
    options |= {"collected": source.collected} if collects(job.arm) else {}
    model, ensemble = method_of(job.arm).make(source.model, **options)
    return model, ensemble.take(positions)


def _refreshed(job: Job, network: str, source: Source, positions: list[int]) -> tuple[nn.Module, Ensemble]:
    model, ensemble = draw(job.plain(), network, source, positions)
    if not has_batch_norm(model):
        return model, ensemble
    reference = source.collected if collects(job.arm) else None
    return model, refresh(model, ensemble, source.unlabelled, forward=call, reference=reference)


def wants_inputs(arm: Arm) -> bool:
    """Whether an arm's members come from unlabelled inputs, by error feedback."""
    return "inputs" in inspect.signature(method_of(arm).make).parameters


def key_of(job: Job, network: str) -> Key:
    """The seed's key; networks with names of their own draw differently."""
    return Key(job.seed) if network == ONLY else Key(job.seed).fold(network)


def _pooled(arm: Arm, pool: str | None) -> Arm:
    """The arm with the recipe's pool, where it has several members and names none."""
    several = arm.members * len(arm.networks) > 1
    return arm.model_copy(update={"pool": pool}) if pool and several and arm.pool is None else arm


def _one_name(format: str) -> str:
    """The number system under its own name: INT-5 is int5. One that does not exist is met when it is drawn."""
    try:
        return number_format(format).name
    except ValueError:
        return format


def _check_asked(arm: Arm, sources: Sources) -> None:
    models = [sources[name].model for name in arm.networks]
    if collects(arm):
        fewest = min(len(_collected(sources, name)) for name in arm.networks)
        if arm.method == "collected" and arm.members > fewest:
            raise RecipeError(f"arm 'collected' asks for {arm.members} members, and {fewest} are brought along")
    if arm.method == "collected" and arm.refresh:
        raise RecipeError("arm 'collected' asks for refresh, but its members have statistics of their own")
    if arm.refresh and not any(map(has_batch_norm, models)):
        raise RecipeError(f"arm {arm.method!r} asks for refresh, but the network has no batch norm with statistics")
    if arm.method == "dropout" and not all(map(has_dropout, models)):
        raise RecipeError("arm 'dropout': the network has no dropout layer with p > 0")


def _collected(sources: Sources, name: str) -> Ensemble:
    """The members that a network brings along."""
    found = sources[name].collected
    if found is None:
        raise RecipeError(
            f"{name!r} brings no members along: give it `members`, a training or a .pluria file, or name other networks"
        )
    return found


def _distinct(found: list[Job]) -> list[Job]:
    """The jobs, with a number behind a name that another arm has too."""
    arms: dict[str, list[str]] = {}
    named = []
    for job in found:
        alike, own = arms.setdefault(job.name, []), job.arm.model_dump_json(exclude={"beyond"})
        if own not in alike:
            alike.append(own)
        number = alike.index(own) + 1
        named.append(job if number == 1 else replace(job, name=f"{job.name} ({number})"))
    return named


def _with_main(found: list[Job], asked: list[Arm]) -> list[Job]:
    """The jobs, where all are controls with those that were asked for set free, so that there is something to show."""
    if not all(job.control for job in found):
        return found
    wanted = [arm.model_dump_json() for arm in asked]
    freed = [replace(j, control=is_plain(j.arm) or j.arm.model_dump_json() not in wanted) for j in found]
    if all(job.control for job in freed):
        raise RecipeError("the arms ask for the network itself only; add one to hold against it, such as low_precision")
    return freed


def is_plain(arm: Arm) -> bool:
    """Whether an arm is one network in full precision: what everything is held against."""
    return arm.method == "full_precision" and arm.members == len(arm.networks) == 1 and not arm.refresh
