"""One round of gossip: every member becomes a weighted mean of its neighbours and itself.

    theta_i' = sum_k m_ik theta_k

Rows of the matrix sum to one. Where its columns do too, the mean of all members stays where it is, and rounds of mixing
bring every member there. DIMAT is one such round of neighbours that were first permuted to fit. Source: Saadati et al.,
"DIMAT: decentralized iterative merging-and-training for deep learning models", CVPR 2024.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, Stacked, block
from pluria.core.reduce import weighted_sum
from pluria.numbers.narrow import narrowed


def mix(ensemble: Ensemble, matrix: Tensor) -> Ensemble:
    """Members mixed by `matrix` `[K, K]`, row i for the member at position i; they are numbered anew, weights stay.

    Sums are float64, rounded once; integers stay with their member. Raises ValueError for a matrix of another shape,
    with negative numbers, or with rows that do not sum to one.

    >>> from pluria.core.ensemble import stack
    >>> two = stack([{"w": torch.tensor([0.0])}, {"w": torch.tensor([4.0])}])
    >>> [member["w"].item() for member in mix(two, torch.tensor([[0.75, 0.25], [0.0, 1.0]]))]
    [1.0, 4.0]
    """
    count, shares = len(ensemble), matrix.to(torch.float64)
    if shares.shape != (count, count):
        raise ValueError(f"{count} members are mixed by a matrix [{count}, {count}]; got {list(shares.shape)}")
    sums = shares.sum(1)
    if not bool((shares >= 0).all()) or not torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=1e-6):
        raise ValueError(f"rows of the matrix are not negative and sum to one; their sums are {sums.tolist()}")
    made: dict[int, Family] = {}
    for family in ensemble.families.values():
        if id(family) not in made:
            made[id(family)] = _mixed(block(family, ensemble.members), shares)
    families = {name: made[id(family)] for name, family in ensemble.families.items()}
    return Ensemble(families, tuple(range(count)), ensemble.weights)


def _mixed(values: Tensor, shares: Tensor) -> Family:
    if not values.is_floating_point():
        return Stacked(values)
    mixed = torch.empty_like(values)
    for out, row in zip(mixed, shares / shares.sum(1, keepdim=True), strict=True):
        out.copy_(narrowed(weighted_sum(values, row), out.dtype))
    return Stacked(mixed)
