"""What merging models would give, measured on rows with targets.

Where a network has batch norm, its statistics are refreshed on lines between models, by difference from the first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from pluria.align import has_batch_norm, rebasin, refresh
from pluria.check.barrier import Losses, barrier, barrier_profile, member_losses
from pluria.check.gap import Choice, soup_gap
from pluria.core.ensemble import Ensemble, single, stack
from pluria.core.model import tensors
from pluria.core.params import Params, check_fit
from pluria.merge import leafwise, linear
from pluria.predict import first
from pluria.predict.batches import Batches


@dataclass(frozen=True)
class Measured:
    """What was run, on the rows that were given; all losses are mean negative log-likelihoods.

    ends             loss of each model                     mean, aligned    of their mean, and after `rebasin`
    barriers         height of the line from the first model to each other one; `aligned_barriers` after `rebasin`
    gained           by how much `rebasin` lowers the distance to the first model, for each other one
    layers           the heights of each layer alone, between the first two models (`barrier_profile`)
    choices          the table of soup, ensemble and part of each (`soup_gap`)
    unaligned        why nothing was aligned, None where it was
    refreshed        whether batch-norm statistics were refreshed, by difference from the first model
    """

    ends: tuple[float, ...]
    mean: float
    aligned: float | None
    barriers: tuple[float, ...]
    aligned_barriers: tuple[float, ...] | None
    gained: tuple[float, ...] | None
    layers: tuple[tuple[str, float, float], ...]
    choices: tuple[Choice, ...]
    unaligned: str | None
    refreshed: bool


def measure(
    network: nn.Module, several: Sequence[Params], batches: Batches, *, heads: Sequence[str] = (), steps: int = 5
) -> Measured:
    """Run models of one network on batches of inputs and targets: lines between them, their mean, their ensemble."""
    for params in several:
        check_fit(params, tensors(network), what="a model")
    unlabelled = [first(batch)[0] for batch in batches]
    mends = has_batch_norm(network)
    change = (lambda e: refresh(network, e, unlabelled, reference=several[0])) if mends else None
    losses = member_losses(network, batches, change=change)
    together = stack(several)
    plain = member_losses(network, batches)
    aligned, gained, reason = _aligned(network, together, unlabelled)
    profile = barrier_profile(several[0], several[1], losses, steps=steps)
    return Measured(
        ends=tuple(plain(together)),
        mean=losses(single(leafwise(together, linear())))[0],
        aligned=None if aligned is None else losses(single(leafwise(aligned, linear())))[0],
        barriers=_heights(together, losses, steps),
        aligned_barriers=None if aligned is None else _heights(aligned, losses, steps),
        gained=gained,
        layers=tuple((name, *heights) for name, heights in profile.items()),
        choices=soup_gap(network, together, batches, heads=heads),
        unaligned=reason,
        refreshed=mends,
    )


def _aligned(
    network: nn.Module, together: Ensemble, unlabelled: list[Any]
) -> tuple[Ensemble | None, tuple[float, ...] | None, str | None]:
    """The models aligned to the first, and how much nearer each one came; or why they could not be aligned."""
    try:
        found = rebasin(network, together, unlabelled[:1])
    except (ValueError, ImportError) as error:
        return None, None, str(error)
    origin = together.params(together.members[0])
    gained = []
    for member in together.members[1:]:
        before, after = (_apart(origin, e.params(member)) for e in (together, found))
        gained.append(before - after)
    return found, tuple(gained), None


def _apart(one: Params, other: Params) -> float:
    pairs = [(one[name].double(), value.double()) for name, value in other.items() if value.is_floating_point()]
    apart = sum(float((a - b).square().sum()) for a, b in pairs)
    return apart / sum(float(a.square().sum() + b.square().sum()) for a, b in pairs)


def _heights(ensemble: Ensemble, losses: Losses, steps: int) -> tuple[float, ...]:
    origin, *others = (ensemble.params(member) for member in ensemble.members)
    return tuple(barrier(origin, other, losses, steps=steps).height for other in others)
