"""How alike the activations of two networks are: correlations of what layers read, on the same inputs.

C[i, j] = (E[a_i b_j] - E[a_i] E[b_j]) / (std a_i  std b_j)        0 where one of them never changes
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pluria.align.follow import record
from pluria.align.groups import Groups, Places, Spot, laid_out
from pluria.align.infer import Traced
from pluria.align.matching import Likeness, empty, joint_spots
from pluria.core.calling import Forward


@dataclass
class Moments:
    """Sums over examples of the places of several networks end to end: `[n]` and `[n, n]`."""

    count: int
    total: Tensor
    product: Tensor

    def correlation(self) -> Tensor:
        """`[n, n]`, zero for places that never change."""
        mean = self.total / self.count
        cov = self.product / self.count - torch.outer(mean, mean)
        var = cov.diagonal().clamp(min=0)
        # What rounding leaves of a constant is no variance.
        var = torch.where(var > 1e-10 * (self.product.diagonal() / self.count), var, torch.inf)
        return cov / torch.outer(var.sqrt(), var.sqrt())


def match_activations(
    reference: nn.Module, member: nn.Module, batches: Iterable[Any], traced: Traced, forward: Forward
) -> Places:
    """Places of `member` whose activations are most correlated with those of `reference`."""
    groups = traced.groups
    places = groups.identity()
    for group, table in likenesses([reference, member], batches, traced, forward).items():
        own, inner = table.assign()
        places.update({group: own, **inner})
    return places


def likenesses(
    networks: Sequence[nn.Module], batches: Iterable[Any], traced: Traced, forward: Forward
) -> dict[str, Likeness]:
    """For each group, correlations of the first network's places with the second's, summed over what reads it."""
    found: dict[str, Likeness] = {}
    for (group, child), correlation in correlations(networks, batches, traced, forward):
        table = found.setdefault(group, empty(group, traced.groups))
        size = len(correlation) // len(networks)
        cross = correlation[:size, size:]
        if child is None:
            table.rows += cross
        else:
            heads, inner = traced.groups.sizes[group], traced.groups.sizes[child]
            table.inner[child] += cross.reshape(heads, inner, heads, inner).transpose(1, 2)
    return found


def correlations(
    networks: Sequence[nn.Module], batches: Iterable[Any], traced: Traced, forward: Forward
) -> list[tuple[tuple[str, str | None], Tensor]]:
    """For each place where a group is read: the group, the one within it, and `[K n, K n]` of all networks' places."""
    wanted = _wanted(traced)
    sums: dict[tuple[int, int], Moments] = {}
    for batch in batches:
        seen = [_read(network, batch, wanted, traced.groups, forward) for network in networks]
        for spot in seen[0]:
            features = torch.cat([own[spot] for own in seen])
            moments = sums.setdefault(spot, _none(len(features)))
            moments.count += features.shape[1]
            moments.total += features.sum(1)
            moments.product += features @ features.T
    names = {(number, i): tuple(spot) for number, spots in wanted.items() for i, spot in enumerate(spots)}
    return [((names[at][0], (*names[at], None)[1]), moments.correlation()) for at, moments in sums.items()]


def _wanted(traced: Traced) -> dict[int, list[dict[str, Spot]]]:
    """For each reading operation, where each group stands in what is read.

    Beside another group that is permuted by itself (in grouped convolutions) places cannot be told one by one: there a
    group is not read.
    """
    groups = traced.groups
    tops = [group for group in groups.sizes if group not in groups.within]
    found = {n: [at for group in tops for at in joint_spots(runs, group, groups)] for n, runs in traced.reads}
    return {n: [at for at in several if _by_itself(at)] for n, several in found.items()}


def _by_itself(wanted: dict[str, Spot]) -> bool:
    return all(factor.isdecimal() or factor in wanted for spot in wanted.values() for factor in spot.run)


def _read(
    network: nn.Module, batch: Any, wanted: dict[int, list[dict[str, Spot]]], groups: Groups, forward: Forward
) -> dict[tuple[int, int], Tensor]:
    """What layers read of one batch, `[places, examples]` in float64 for each spot."""
    found: dict[tuple[int, int], Tensor] = {}
    own = {id(tensor) for tensor in network.state_dict(keep_vars=True).values()}

    def keep(number: int, value: Tensor) -> None:
        # A layer reads its weights as well, and those are views of the network's own tensors.
        if id(value) in own or id(value._base) in own:
            return
        for i, spot in enumerate(wanted.get(number, ())):
            part = laid_out(value.detach(), spot, groups)
            found[number, i] = part.reshape(-1, part.shape[-1]).to(torch.float64)

    record(network, batch, forward, keep)
    return found


def _none(size: int) -> Moments:
    zeros = torch.zeros(size, dtype=torch.float64)
    return Moments(0, zeros, torch.outer(zeros, zeros))
