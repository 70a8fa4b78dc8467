"""Experts of a mixture merged into fewer (M-SMoE): the most used lead, the others join the leader most like them.

    leaders   of all layers, the experts with the largest shares of their layer's tokens; one or more in each layer
    group     of an expert: the leader with the largest cosine, of router logits or of weights
    merged    sum_e f_e P_e(theta_e) / sum_e f_e      f_e its tokens, P_e: hidden places in the leader's order

The router stays: `merged[name][groups]` gives a tensor for each of its outputs again. A token that picks two experts of
one group gets the merged one with both their weights. Source: Li et al., "Merge, then compress: demystify efficient
SMoE with hints from its routing policy", ICLR 2024.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pluria.core.params import Params
from pluria.numbers.narrow import narrowed


def expert_usage(logits: Tensor, top: int) -> Tensor:
    """How many tokens go to each expert, float64 `[E]`, for router logits `[N, E]` of which the `top` largest count.

    >>> expert_usage(torch.tensor([[3.0, 2.0, 1.0], [3.0, 1.0, 2.0]]), 2)
    tensor([2., 1., 1.], dtype=torch.float64)
    """
    chosen = logits.topk(top, dim=-1).indices.flatten()
    return torch.bincount(chosen, minlength=logits.shape[-1]).to(torch.float64)


def expert_groups(usage: Sequence[Tensor], rows: Sequence[Tensor], *, keep: int) -> list[Tensor]:
    """The group of each expert, int64 `[E]` for each layer, so that `keep` groups are left in all layers together.

    usage   tokens of each expert `[E]`, by layers
    rows    what experts are compared by `[E, D]`: router logits on the same tokens, or weights

    Groups are numbered by their leaders' use, the most used first. Raises ValueError for fewer than one for each layer,
    and for more than there are.
    """
    sizes = [len(each) for each in usage]
    if not len(usage) <= keep <= sum(sizes):
        raise ValueError(
            f"{len(usage)} layers of {sum(sizes)} experts keep between {len(usage)} and {sum(sizes)}; got {keep}"
        )
    ordered = [each.to(torch.float64).sort(descending=True, stable=True) for each in usage]
    shares = [values / max(float(values.sum()), 1.0) for values, _ in ordered]
    for share in shares:
        share[0] = torch.inf  # one for each layer, before any other
    leads = torch.zeros(sum(sizes), dtype=torch.bool)
    leads[torch.cat(shares).sort(descending=True, stable=True).indices[:keep]] = True
    counts = [int(part.sum()) for part in torch.split(leads, sizes)]
    return [_joined(row, order[:count]) for row, (_, order), count in zip(rows, ordered, counts, strict=True)]


def merge_experts(
    experts: Params, usage: Tensor, groups: Tensor, *, hidden: Mapping[str, int] | None = None
) -> dict[str, Tensor]:
    """One expert for each group: tensors `[E, ...]` become `[G, ...]`.

    usage    `[E]`; the most used of a group leads, of equal ones the first
    groups   `[E]`, numbers 0..G-1, each at least once
    hidden   the axis, in the stacked tensor, on which each tensor has the hidden places: of the matrices in
             and of the one out. They are permuted to the leader's by the best assignment; None: nothing is permuted

    Arithmetic is float64, rounded once; whole numbers are the leader's. A group that is never used gets a plain mean.
    Permuting needs scipy. Raises ValueError for sizes that do not fit.
    """
    count, places = len(usage), dict(hidden or {})
    sizes = {experts[name].shape[axis] for name, axis in places.items()}
    if groups.shape != (count,) or any(len(value) != count for value in experts.values()) or len(sizes) > 1:
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in experts.items())
        raise ValueError(
            f"experts, their use {list(usage.shape)} and their groups {list(groups.shape)} are of one number, and "
            f"hidden places of one number; got {shapes}"
        )
    made = [_one(experts, usage, torch.nonzero(groups == g).flatten(), places) for g in range(int(groups.max()) + 1)]
    return {name: torch.stack([each[name] for each in made]) for name in experts}


def _one(experts: Params, usage: Tensor, members: Tensor, hidden: Mapping[str, int]) -> dict[str, Tensor]:
    """The merged expert of a group."""
    if not len(members):
        raise ValueError("a group has no expert; groups are numbered 0, 1, ... without a gap")
    mass = usage[members].to(torch.float64)
    share = mass / mass.sum() if float(mass.sum()) > 0 else torch.full_like(mass, 1 / len(members))
    leader = int(members[mass.argmax()])
    total = {name: torch.zeros(value.shape[1:], dtype=torch.float64) for name, value in experts.items()}
    for expert, part in zip(members.tolist(), share.tolist(), strict=True):
        order = None if expert == leader or not hidden else _matched(experts, leader, expert, hidden)
        for name, value in experts.items():
            own = value[expert].to(torch.float64)
            total[name] += part * (
                own.index_select(hidden[name] - 1, order) if order is not None and name in hidden else own
            )
    whole = {name for name, value in experts.items() if not value.is_floating_point()}
    return {n: experts[n][leader] if n in whole else narrowed(total[n], experts[n].dtype) for n in experts}


def _matched(experts: Params, leader: int, expert: int, hidden: Mapping[str, int]) -> Tensor:
    """For each hidden place of the leader, the expert's place that is put there."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        raise ImportError("permuting experts needs scipy: pip install 'pluria[align]'") from None
    rows = {
        e: torch.cat([_rows(experts[name][e], axis - 1) for name, axis in hidden.items()], 1) for e in (leader, expert)
    }
    _, order = linear_sum_assignment((rows[leader] @ rows[expert].T).numpy(), maximize=True)
    return torch.as_tensor(order)


def _rows(value: Tensor, axis: int) -> Tensor:
    return value.to(torch.float64).movedim(axis, 0).flatten(1) if value.ndim > 1 else value.to(torch.float64)[:, None]


def _joined(rows: Tensor, leaders: Tensor) -> Tensor:
    """The position among the leaders of the one that each expert joins."""
    units = torch.nn.functional.normalize(rows.detach().to(torch.float64), dim=1)
    found = (units @ units[leaders].T).argmax(1)
    found[leaders] = torch.arange(len(leaders))
    return found
