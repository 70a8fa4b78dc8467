"""The controls that apply to a recipe's networks and data: cheaper things that could have done the same.

full precision (and refreshed, where arms are) · several networks in full precision · averaged over views ·
members that are brought along, where arms are drawn around them · nearest at each number system, with feedback for
compensated arms · plain rounding for compensated arms · Gaussian noise of matched variance, and independent members ·
MC dropout where there is dropout · single models at other bit widths
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from pluria.recipe.named import collects, has_dropout
from pluria.recipe.schema import Arm, Recipe
from pluria.recipe.source import Sources

SINGLES = ("int2", "int3", "int4", "int5", "int6", "int7", "int8", "bf16")
"""Nearest rounding to these is tried for the best single model within an ensemble's bits."""

SHIFTS = ("identity", "left", "right", "up", "down", "up-left", "up-right", "down-left", "down-right")
"""Views that keep the label of any picture; flips turn some digits and letters into others."""

Control = tuple[Arm, bool]
"""An arm, and whether it is only a candidate for the best single model."""


def controls_of(recipe: Recipe, asked: list[Arm], sources: Sources, images: bool) -> Iterator[Control]:
    """Each control for every set of networks that an arm asks for; `images` says that views can be averaged over."""
    for name in sources:
        yield _arm("full_precision", (name,)), False
    if not recipe.controls:
        return
    views = (SHIFTS if images else ()) if recipe.views is None else recipe.views
    for together in dict.fromkeys(arm.networks for arm in asked):
        own = [arm for arm in asked if arm.networks == together]
        if any(map(collects, own)) and not any(arm.method == "collected" for arm in own):
            yield _members(together, sources), False
        yield _arm("full_precision", together), False
        if any(arm.refresh for arm in own):
            yield _arm("full_precision", together, refresh=True), False
        yield from ((arm, False) for arm in _seen(together, own, views))
        for arm in own:
            yield from ((control, False) for control in _like(arm))
        if all(has_dropout(sources[name].model) for name in together):
            yield _arm("dropout", together, members=max(arm.members for arm in own)), False
    rounded = [arm for arm in asked if arm.method in ("low_precision", "compensated")]
    for where in dict.fromkeys(json.dumps(arm.options["where"]) for arm in rounded):
        for name in dict.fromkeys(name for arm in rounded for name in arm.networks):
            for format in SINGLES:
                yield _arm("nearest", (name,), format=format, where=json.loads(where), beyond=False), True


def _members(together: tuple[str, ...], sources: Sources) -> Arm:
    """All members that the networks bring along, as many of each."""
    brought = [sources[name].collected for name in together]
    return _arm("collected", together, members=min(len(found) for found in brought if found is not None))


def _like(arm: Arm) -> Iterator[Arm]:
    """What a rounded arm is held against on its own grid."""
    if arm.method not in ("low_precision", "compensated"):
        return
    grid = {k: v for k, v in arm.options.items() if k in ("format", "granularity", "where")}
    base = {"of": arm.options["of"]} if "of" in arm.options else {}
    alike: dict[str, Any] = {name: getattr(arm, name) for name in ("members", "views", "beyond", "refresh", "pool")}
    one = {"refresh": arm.refresh, "beyond": arm.beyond}
    yield _arm("nearest", arm.networks, **one, **grid)
    if arm.method == "low_precision":
        # Gaussian draws are independent, so the grid is judged by members that are coupled in no other way.
        if not collects(arm):
            yield _arm("gaussian", arm.networks, **alike, **grid)
        yield _arm("low_precision", arm.networks, **alike, **grid, **base, coupling="independent")
        return
    feedback = {k: v for k, v in arm.options.items() if k in ("order", "damping")}
    yield _arm("gptq", arm.networks, **one, **grid, **feedback)
    yield _arm("low_precision", arm.networks, **alike, **grid, coupling=arm.options["coupling"])


def _seen(together: tuple[str, ...], asked: list[Arm], views: tuple[str, ...]) -> Iterator[Arm]:
    """Full precision over views: a pair of them, and at the forwards of each ensemble; each network alone as well.

    Under the better of two averages, and under every pool that an arm asks for: what a pool gains, views gain too.
    """
    names = tuple(dict.fromkeys(["identity", *views, *(view for arm in asked for view in arm.views)]))
    pools = dict.fromkeys([None, *(arm.pool for arm in asked)])
    sizes = {2, *(arm.members for arm in asked)} if max(arm.members for arm in asked) * len(together) > 1 else set()
    for size, pool in itertools.product(sorted({len(names[:size]) for size in sizes} - {0, 1}), pools):
        yield _arm("full_precision", together, members=size, views=names[:size], pool=pool)
    if len(together) > 1:
        for size in sorted({len(names[: arm.members * len(together)]) for arm in asked} - {0, 1}):
            for name, pool in itertools.product(together, pools):
                yield _arm("full_precision", (name,), members=size, views=names[:size], pool=pool)


def _arm(method: str, networks: tuple[str, ...], **options: Any) -> Arm:
    return Arm.model_validate({"method": method, "members": 1, "networks": networks, **options})
