"""Evolved soup: coefficients searched by differential evolution, for losses without a gradient.

    theta_j = sum_k c_gk theta_kj        c_gk = w_k x_gk / sum_i w_i x_gi        x in [0, 1]

The search is scipy's. Sources: Storn and Price, "Differential evolution", Journal of Global Optimization 1997; for
merging, Akiba et al., "Evolutionary optimization of model merging recipes", Nature Machine Intelligence 2025.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.merge.coordinates import Grouping, combined, grouped
from pluria.merge.greedy import Loss
from pluria.numbers.key import MERGING, Key, tensor_id
from pluria.numbers.philox import uniforms, words

POPULATION = "\0population"
"""Reserved name of the random addresses, so that no tensor shares them."""


def evolved_soup(
    ensemble: Ensemble,
    loss: Loss,
    *,
    groups: Grouping | None = lambda name: 0,
    population: int = 16,
    generations: int = 10,
    key: Key | int = 0,
) -> dict[str, Tensor]:
    """The best soup of population (generations + 1) evaluations of `loss`; the mean is the first of them.

    groups   a tensor's name to its group, which shares its coefficients; by default the whole model is one

    Needs scipy, which comes with scikit-learn. Raises ValueError for a population below five.

    >>> from pluria.core.ensemble import stack
    >>> two = stack([{"w": torch.tensor([0.0])}, {"w": torch.tensor([1.0])}])
    >>> evolved_soup(two, lambda params: abs(params["w"].item() - 0.8))["w"].round(decimals=1)
    tensor([0.8000])
    """
    if population < 5 or generations < 0:
        raise ValueError(f"five or more in a population, and generations from 0 on; got {population} and {generations}")
    try:
        from scipy.optimize import differential_evolution
    except ImportError:
        raise ImportError("the search is scipy's, which is missing: pip install scipy") from None
    key = key if isinstance(key, Key) else Key(key)
    shape = (max(grouped(ensemble, groups).values()) + 1, len(ensemble))
    size = shape[0] * shape[1]
    word = words(key, tensor=tensor_id(POPULATION), group=0, stream=MERGING, start=0, stop=population * size)
    first = uniforms(word).to(torch.float64).view(population, size)
    first[0] = 0.5

    def coordinates(x: Tensor) -> Tensor:
        mass = x.view(shape) * ensemble.weights
        total = mass.sum(-1, keepdim=True)
        return torch.where(total > 0, mass / total, ensemble.weights)

    found = differential_evolution(
        lambda x: loss(combined(ensemble, coordinates(torch.from_numpy(x.copy())), groups=groups)),
        [(0.0, 1.0)] * size,
        init=first.numpy(),
        maxiter=generations,
        seed=key.seed % 2**32,
        polish=False,
        tol=0.0,
    )
    return combined(ensemble, coordinates(torch.from_numpy(found.x.copy())), groups=groups)
