"""Members that are parts of one network: disjoint subnetworks, pruned pairs that are tuned, masked channels.

    subnetworks      one base for all, every hidden weight in one member (Ex Uno Plures); trained from its start
    prune_and_tune   a trained parent under pairs of opposite masks, each member tuned by itself
    masksembles      one base for all under overlapping masks of channels

What is not masked (norms, biases, the last layer) is each member's own for the first two, shared in the third. Masks
save storage, not time: ordinary hardware multiplies the zeros.

Sources: those of `masks`. No code of Ex Uno Plures is public; this follows its description.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pluria.core.params import Params
from pluria.numbers.key import Key
from pluria.train.masks import MaskedPart, Masks, channel_masks, disjoint_masks, hidden_weights, paired_masks
from pluria.train.population import OwnPart, Part, Population, check_members


def subnetworks(model: nn.Module, *, members: int = 4, masks: Masks | None = None, key: Key | int = 0) -> Population:
    """A population whose members own disjoint parts of the hidden weights, at random unless `masks` are given.

    Training one member leaves the others' outputs bit for bit as they were under an optimiser without weight decay that
    has trained none of the others: the base is one parameter of all members, and decay, or momentum that is left from
    training them, moves the rest of it too. Make the optimiser anew for each member.

    Raises ValueError for masks that overlap, or a network of one layer.
    """
    given = disjoint_masks(model, members=members, key=key) if masks is None else masks
    for name, mask in given.items():
        if len(mask) != members or int(mask.sum(0).max()) > 1:
            raise ValueError(
                f"{members} members need as many disjoint masks; of {name} there are {len(mask)}, or two overlap"
            )
    return _under(model, given, members, shared=True)


def prune_and_tune(
    model: nn.Module, *, members: int = 6, density: float = 0.5, masks: Masks | None = None, key: Key | int = 0
) -> Population:
    """A population of copies of a trained network, each under a random mask, pairs under opposite ones; tune them next.

    Tune until members are as good as the parent, with a rate that goes up and down once: a few dozen steps are too few.

    `masks` of your own, bool `[K, *shape]` by name, take the place of the pairs. Raises ValueError where there are not
    as many of them as members.
    """
    given = paired_masks(model, members=members, density=density, key=key) if masks is None else masks
    for name, mask in given.items():
        if len(mask) != members:
            raise ValueError(f"{members} members need as many masks; of {name} there are {len(mask)}")
    return _under(model, given, members, shared=False)


def masksembles(model: nn.Module, *, members: int = 4, scale: float = 2.0, key: Key | int = 0) -> Population:
    """A population whose members read different channels of each layer; all other tensors are shared.

    It changes the function by design: no member is the original network.
    """
    masks = channel_masks(model, members=members, scale=scale, key=key)
    own = dict(model.named_parameters())
    parts: dict[str, Part] = {n: MaskedPart(own[n], mask, shared=True) for n, mask in masks.items()}
    return Population(model, members=members, parts=parts)


def claimed_masks(
    model: nn.Module, fit: Callable[[nn.Module, Masks, int], Params], *, members: int = 4
) -> dict[str, Tensor]:
    """Disjoint masks by magnitude: members in turn train briefly on what is free, and claim their share of the largest.

    `fit(model, free, member)` trains the elements of the hidden weights that `free` marks, bool by name, and gives the
    network's tensors. Ties go to the earlier element.
    """
    check_members(members)
    weights = hidden_weights(model, "a split into subnetworks")
    free = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    rows: dict[str, list[Tensor]] = {name: [] for name in weights}
    for member in range(members):
        found = fit(model, {name: mask.clone() for name, mask in free.items()}, member)
        for name, mask in free.items():
            size = torch.where(mask, found[name].detach().abs(), -1.0).flatten()
            largest = torch.argsort(size, descending=True, stable=True)[: weights[name].numel() // members]
            claimed = torch.zeros_like(mask).view(-1).scatter_(0, largest, True).view(mask.shape) & mask
            rows[name].append(claimed)
            free[name] = mask & ~claimed
    return {name: torch.stack(each) for name, each in rows.items()}


def _under(model: nn.Module, masks: Masks, members: int, *, shared: bool) -> Population:
    parts: dict[str, Part] = {}
    for name, value in model.named_parameters():
        parts[name] = MaskedPart(value, masks[name], shared=shared) if name in masks else OwnPart(value, members)
    return Population(model, members=members, parts=parts)
