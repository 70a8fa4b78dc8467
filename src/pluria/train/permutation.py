"""How many infinitely wide two-layer ReLU networks must be averaged to apply a learned permutation to every input.

Trained to the end on the k unit vectors, each network is a draw of a Gaussian process. Its mean has the right sign in
every place and its variance does not vanish; so the mean of N networks, cut at a threshold, is right with a probability
that grows with N. In closed form, with c the cosine and a the angle of two 0/1 inputs, both layers trained:

    k0 = (pi - a) / pi      k1 = (sin a + c (pi - a)) / pi      S = |x||y| k1 / 2      T = S + |x||y| c k0 / 2
    mean(x) = T_xX T_XX^-1 Y      cov = S_xx + A S_XX A' - A S_Xx - S_xX A',  A = T_xX T_XX^-1

Source: Giapitzakis et al., "Learning to execute permutations exactly", arXiv 2502.16763, 2025.
"""

from __future__ import annotations

import math
from itertools import product

import torch
from torch import Tensor

from pluria.numbers.key import Key
from pluria.train.fresh import fresh_normals

SLACK = 1e-9
"""Added to the covariance's diagonal: it is singular where training inputs are among the tests."""


def kernels(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The tangent kernel T and the network's own S, `[n, m]` of inputs `[n, k]` and `[m, k]` that are not zero."""
    x, y = x.to(torch.float64), y.to(torch.float64)
    lengths = x.norm(dim=1)[:, None] * y.norm(dim=1)[None]
    cosine = (x @ y.T / lengths).clamp(-1, 1)
    angle = torch.acos(cosine)
    k0 = (math.pi - angle) / math.pi
    k1 = (torch.sin(angle) + cosine * (math.pi - angle)) / math.pi
    own = lengths * k1 / 2
    return own + lengths * cosine * k0 / 2, own


def process(places: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every 0/1 input of so many places but zero, `[2^k - 1, k]`, and one network's mean and covariance on them.

    The permutation is the identity: any other relabels the outputs. Outputs are independent, each with the covariance.
    """
    if not 1 <= places <= 12:
        raise ValueError(f"all inputs of 1 to 12 places are looked at; got {places}")
    rows = sorted(product([0.0, 1.0], repeat=places), key=sum)[1:]
    x, known = torch.tensor(rows, dtype=torch.float64), torch.eye(places, dtype=torch.float64)
    (train, prior), (cross, between), (_, own) = kernels(known, known), kernels(x, known), kernels(x, x)
    share = torch.linalg.solve(train, cross.T).T
    return x, share, own + share @ prior @ share.T - share @ between.T - between @ share.T


def _untrained(places: int) -> tuple[Tensor, Tensor, Tensor]:
    """The process on all inputs but the unit vectors, which come first."""
    x, mean, covariance = process(places)
    return x[places:], mean[places:], covariance[places:, places:]


def exact_share(places: int, networks: int, *, threshold: float = 0.25, trials: int = 400, key: Key | int = 0) -> float:
    """How often the mean of so many networks, cut at the threshold, is right on all inputs in all places at once.

    On the unit vectors, which they are trained on, networks are right without noise. Raises ValueError for a threshold
    outside 0..1, at which that is not so.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"a threshold lies in 0..1, 1 excluded; got {threshold}")
    key = key if isinstance(key, Key) else Key(key)
    x, mean, covariance = _untrained(places)
    factor = torch.linalg.cholesky(covariance + SLACK * torch.eye(len(x), dtype=torch.float64))
    right = 0
    for trial in range(trials):
        noise = fresh_normals("\0permutation", tuple(x.shape), key, group=trial).to(torch.float64)
        right += bool(((mean + factor @ noise / math.sqrt(networks) > threshold) == (x > 0)).all())
    return right / trials


def networks_needed(
    places: int, *, probability: float = 0.9, threshold: float = 0.25, trials: int = 400, key: Key | int = 0
) -> int:
    """The fewest networks whose mean is right on every input with this probability, by simulation with equal draws.

    About 1.5 to 1.8 k^2 at the threshold of a quarter; a threshold of zero needs many times more. Raises ValueError
    where no number is enough, since the mean of all networks is on the wrong side of the threshold.
    """
    if not 0 < probability < 1:
        raise ValueError(f"a probability lies between 0 and 1; got {probability}")
    x, mean, _ = _untrained(places)
    if not bool(((mean > threshold) == (x > 0)).all()):
        raise ValueError(f"no number of networks is right at {places} places and a threshold of {threshold}: lower it")

    def enough(networks: int) -> bool:
        return exact_share(places, networks, threshold=threshold, trials=trials, key=key) >= probability

    most = 1
    while not enough(most):
        most *= 2
    least = most // 2
    while most - least > 1:
        middle = (least + most) // 2
        least, most = (least, middle) if enough(middle) else (middle, most)
    return most
