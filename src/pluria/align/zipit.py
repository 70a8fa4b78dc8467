"""ZipIt: hidden places of all members are merged in the order of their correlation, within and across members.

    merged places = sum_k M_k x_k,   W = sum_k M_k W_k U_k        M averages a cluster, U copies it back

From K members' n places end to end the most correlated two are merged until n are left. Likeness of a merged place to
another is the smaller of the two, times alpha; at most beta n merges lie within one member. With alpha = beta = 0 each
place meets one of each other member, which is matching. Source: Stoica et al., "ZipIt!", ICLR 2024.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pluria.align.activations import correlations
from pluria.align.groups import Groups, Run
from pluria.align.infer import Traced, traced
from pluria.core.calling import Forward, call, check_batches, moved, place
from pluria.core.ensemble import Ensemble
from pluria.core.model import Role, roles, tensors, working_copy
from pluria.core.params import check_fit
from pluria.numbers.narrow import narrowed

LAYERS = ("linear", "conv", "embedding", "head")


def zipit(
    model: nn.Module,
    ensemble: Ensemble,
    inputs: Iterable[Any],
    *,
    alpha: float = 0.3,
    beta: float = 0.125,
    forward: Forward = call,
) -> dict[str, Tensor]:
    """Params of one network of the members' own width, in which their most correlated hidden places are one.

    inputs   unlabelled batches, run once on each member
    alpha    in 0..1, what is left of a merged place's likeness to others; 0: no place is merged twice. Only at 1 are
             three copies of a network sure to give it back; two always are
    beta     in 0..1, the share of a member's places that may be merged with others of the same member

    Members count alike, whatever their weights. Heads of attention and what lies within them are averaged in place, so
    align such members first, `rebasin`; running statistics are mixed, so refresh them after. Raises ValueError for
    numbers outside their range and for a model without hidden places.
    """
    zipping = prepared(model, ensemble, inputs, alpha=alpha, beta=beta, forward=forward)
    return {name: zipping.merged(name) for name in ensemble.families}


@dataclass(frozen=True, eq=False)
class Zipping:
    """What is known before anything is merged: the members' tensors, and the clusters of the groups that are zipped."""

    several: Sequence[Mapping[str, Tensor]]
    kinds: Mapping[str, Role]
    groups: Groups
    clusters: Mapping[str, Tensor]

    def runs(self, name: str) -> list[list[Run]]:
        """The runs of each axis of a tensor, none where nothing of it may be permuted."""
        return self.groups.runs(name) if name in self.groups.axes else []

    def made(self, name: str) -> list[int]:
        """The axes along which a tensor makes hidden places; along others it reads them."""
        role = self.kinds[name]
        return [axis for axis in range(len(self.runs(name))) if role.kind not in LAYERS or axis == role.axis]

    def merged(self, name: str) -> Tensor:
        """One tensor of all members'."""
        values = [params[name].detach() for params in self.several]
        if not values[0].is_floating_point():
            return values[0].clone()
        zipped = self._zipped(name)
        made = [axis for axis in zipped if axis in self.made(name)]
        if len(made) > 1:
            raise ValueError(f"tensor {name!r} makes hidden places along {len(made)} axes, which cannot be zipped")
        total = torch.zeros(values[0].shape, dtype=torch.float64, device=values[0].device)
        for k in range(len(values)):
            total += self.part(name, k) if made else self.part(name, k) / len(values)
        return narrowed(total, values[0].dtype)

    def part(self, name: str, k: int) -> Tensor:
        """Member k's part of a merged tensor, float64: its axes in merged places."""
        part, runs, made = self.several[k][name].detach().double(), self.runs(name), self.made(name)
        for axis in self._zipped(name):
            part = _along(part, axis, runs[axis], self.groups, self.clusters, k, len(self.several),
                          reads=axis not in made)  # fmt: skip
        return part

    def _zipped(self, name: str) -> list[int]:
        runs = self.runs(name)
        return [axis for axis, own in enumerate(runs) if any(factor in self.clusters for run in own for factor in run)]


def prepared(
    model: nn.Module, ensemble: Ensemble, inputs: Iterable[Any], *, alpha: float, beta: float, forward: Forward
) -> Zipping:
    """Members run on `inputs`, and their hidden places clustered."""
    if not (0 <= alpha <= 1 and 0 <= beta <= 1):
        raise ValueError(f"alpha and beta lie in 0..1; got {alpha} and {beta}")
    check_batches(inputs)
    check_fit(ensemble.outline(), tensors(model), what="the ensemble")
    batches = [moved(batch, place(model), None) for batch in inputs]
    if not batches:
        raise ValueError("no inputs to correlate hidden places on")
    known = traced(model, batches[0], forward)
    twins = [working_copy(model) for _ in ensemble.members]
    for twin, member in zip(twins, ensemble.members, strict=True):
        ensemble.write(member, tensors(twin))
    clusters = {
        group: cluster(likeness, len(twins), alpha, beta)
        for group, likeness in _likeness(twins, batches, known, forward).items()
    }
    if not clusters:
        raise ValueError("no axis of this model may be zipped: it has no hidden places that stand by themselves")
    return Zipping([dict(tensors(twin)) for twin in twins], roles(model), known.groups, clusters)


def cluster(likeness: Tensor, members: int, alpha: float, beta: float) -> Tensor:
    """For each of the K n places which of n merged ones it belongs to, `[K n]`; `likeness` is `[K n, K n]`.

    A merged place stands where the first member's place in it stood.
    """
    total = len(likeness)
    size = total // members
    owner = torch.arange(total) // size
    own = owner[:, None] == owner
    # Of places that are alike the same ones are taken, or copies of a network would not give it back.
    near = likeness + 1e-9 * (torch.arange(total)[:, None] % size == torch.arange(total) % size)
    near.fill_diagonal_(-torch.inf)
    label, left = torch.arange(total), torch.full((members,), math.floor(beta * size))
    for _ in range(total - size):
        spent = own & (left[owner] <= 0)[:, None]
        i, j = _nearest(near.masked_fill(spent, -torch.inf), near)
        label[label == label[j]] = int(label[i])
        if bool(own[i, j]):
            left[owner[i]] -= 1
        joint = torch.minimum(near[i], near[j])
        joint = torch.where(torch.isfinite(joint), joint * alpha if alpha else torch.full_like(joint, -2.0), joint)
        near[i], near[:, i] = joint, joint
        near[j], near[:, j] = -torch.inf, -torch.inf
    return _placed(label, size)


def _nearest(allowed: Tensor, near: Tensor) -> tuple[int, int]:
    """The most alike two places; where none may be merged any more, of all that are left."""
    rows = allowed if bool((allowed > -torch.inf).any()) else near
    i, j = divmod(int(rows.argmax()), len(rows))
    return min(i, j), max(i, j)


def _placed(label: Tensor, size: int) -> Tensor:
    """Labels as numbers 0..n-1: that of a cluster is its first place in the first member; others fill what is free."""
    first = {int(name): i for i, name in reversed(list(enumerate(label[:size].tolist())))}
    free = iter(sorted(set(range(size)) - set(first.values())))
    names = {name: first[name] if name in first else next(free) for name in dict.fromkeys(label.tolist())}
    return torch.tensor([names[name] for name in label.tolist()])


def _likeness(twins: Sequence[nn.Module], batches: list[Any], known: Traced, forward: Forward) -> dict[str, Tensor]:
    """Summed correlations of the groups that stand by themselves; places that never change are like each other."""
    plain = [g for g in known.groups.sizes if g not in known.groups.within and not known.groups.children(g)]
    found: dict[str, Tensor] = {}
    for (group, _), correlation in correlations(twins, batches, known, forward):
        if group in plain:
            still = correlation.diagonal() == 0
            alike = torch.where(still[:, None] & still, 1.0, correlation)
            found[group] = found.get(group, 0) + alike
    return found


def _along(
    value: Tensor, axis: int, runs: Sequence[Run], groups: Groups, clusters: Mapping[str, Tensor], member: int,
    members: int, *, reads: bool,
) -> Tensor:  # fmt: skip
    """One axis of one member's tensor in merged places: copied back where the tensor reads them, averaged where it
    makes them. What is not zipped along an axis that is made counts as one of `members`."""
    parts, start = [], 0
    for run in runs:
        sizes = [groups.size(factor) for factor in run]
        part = torch.unflatten(value.narrow(axis, start, math.prod(sizes)), axis, sizes)
        groups_here = [factor for factor in run if factor in clusters]
        for factor in groups_here:
            matrix = _matrix(clusters[factor], groups.sizes[factor], member, reads)
            place = axis + run.index(factor)
            part = torch.tensordot(matrix.to(part), part, dims=([1], [place])).movedim(0, place)
        scale = 1 if reads or groups_here else members
        parts.append(part.flatten(axis, axis + len(run) - 1) / scale)
        start += math.prod(sizes)
    return torch.cat(parts, axis)


def _matrix(label: Tensor, size: int, member: int, reads: bool) -> Tensor:
    """`[n, n]`, from one member's places to the merged ones: copies where a tensor reads, shares where it makes."""
    hot = torch.nn.functional.one_hot(label, size).double()
    shares = hot if reads else hot / hot.sum(0)
    return shares[member * size : (member + 1) * size].T
