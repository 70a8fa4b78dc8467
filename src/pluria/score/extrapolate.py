"""How a loss falls with the number of members, or with sizes and data, and what its limit is.

    L(K) = E + A / K^a                          expected over random subsets of K members
    L(N, D) = E + A / N^a + B / D^b             networks of N parameters trained on D examples

For given exponents the rest is linear, so the fit is a search over exponents alone. Few sizes tell little: the interval
says how little. At least four sizes are asked for.

Sources: Lobacheva et al., "On Power Laws in Deep Ensembles", NeurIPS 2020; Hoffmann et al., 2022; Choshen et al., "A
Hitchhiker's Guide to Scaling Law Estimation", ICML 2025.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.score.bootstrap import Interval
from pluria.score.rows import IGNORED, check_targets

LARGEST = 4.0
"""Exponents are looked for in (0, LARGEST]."""

ROUNDS, TICKS = 8, 21


@dataclass(frozen=True)
class PowerLaw:
    """E + sum_j A_j / x_j^a_j."""

    limit: float
    factors: tuple[float, ...]
    exponents: tuple[float, ...]

    def __call__(self, *sizes: float) -> float:
        """The loss at these sizes; infinity gives the limit in that direction."""
        terms = zip(self.factors, self.exponents, sizes, strict=True)
        return self.limit + sum(a / x**e if x < math.inf else 0.0 for a, e, x in terms)


@dataclass(frozen=True)
class Extrapolation:
    """A law of the number of members, its limit with an interval over rows, and the measured losses by size."""

    law: PowerLaw
    limit: Interval
    losses: tuple[float, ...]

    def worth(self, members: int) -> float:
        """What all members beyond so many could still gain."""
        return self.law(members) - self.law.limit


def fit_power_law(sizes: Tensor, losses: Tensor) -> PowerLaw:
    """The law of losses `[M]` at sizes `[M]` or `[M, J]`, by least squares with factors that are not negative.

    Raises ValueError for fewer than four sizes, sizes that are not positive, losses that are not finite.
    """
    x = sizes.to(torch.float64).reshape(len(sizes), -1)
    y = losses.to(torch.float64)
    if len(torch.unique(x, dim=0)) < 4:
        raise ValueError(f"a power law needs losses at four sizes or more; got {len(torch.unique(x, dim=0))}")
    if not bool((x > 0).all()) or not bool(torch.isfinite(y).all()):
        raise ValueError("sizes are positive and losses are finite")
    # Sizes in units of their geometric mean, so that the columns of the linear part are of one order.
    units = x.log().mean(0).exp()
    centre, width = [LARGEST / 2] * x.shape[1], LARGEST / 2
    for _ in range(ROUNDS):
        ticks = [torch.linspace(max(c - width, 1e-3), min(c + width, LARGEST), TICKS).tolist() for c in centre]
        found = min((_linear(x / units, y, each) for each in _grid(ticks)), key=lambda fit: fit[0])
        centre, width = found[2], width * 2 / (TICKS - 1) * 1.5
    _, solution, exponents = found
    factors = tuple(float(a * u**e) for a, u, e in zip(solution[1:], units, exponents, strict=True))
    return PowerLaw(float(solution[0]), factors, tuple(exponents))


def extrapolate(
    outputs: Tensor, targets: Tensor, *, subsets: int = 30, draws: int = 200, level: float = 0.95, seed: int = 0
) -> Extrapolation:
    """The law of the NLL of averaged probabilities over logits `[K, N, C]`, from random subsets of each size below K.

    The interval is over rows. Raises ValueError for fewer than four members, shapes that do not fit, targets that are
    no class or ignored, and losses that are not finite.
    """
    if len(outputs) < 4:
        raise ValueError(f"a law of the number of members needs four of them or more; got {len(outputs)}")
    if outputs.ndim != 3 or outputs.shape[1:2] != targets.shape:
        shapes = f"{list(outputs.shape)} and {list(targets.shape)}"
        raise ValueError(f"outputs [K, N, C] and targets [N] do not fit: {shapes}; see flatten")
    check_targets(targets, outputs.shape[-1])
    if bool((targets.long() == IGNORED).any()):
        raise ValueError("drop ignored targets and their rows first, with flatten")
    rows = _losses(outputs, targets.long(), subsets, seed)
    sizes = torch.arange(1, len(outputs) + 1)
    law = fit_power_law(sizes, rows.mean(1))
    generator = torch.Generator().manual_seed(seed)
    limits = torch.empty(draws, dtype=torch.float64)
    for draw in range(draws):
        chosen = torch.randint(rows.shape[1], (rows.shape[1],), generator=generator)
        limits[draw] = fit_power_law(sizes, rows[:, chosen].mean(1)).limit
    low, high = (float(torch.quantile(limits, q)) for q in ((1 - level) / 2, (1 + level) / 2))
    return Extrapolation(law, Interval(law.limit, low, high, level), tuple(rows.mean(1).tolist()))


def _losses(outputs: Tensor, targets: Tensor, subsets: int, seed: int) -> Tensor:
    """The NLL of every row, float64 `[K, N]`, by the size of the subset."""
    log_probs = outputs.detach().to(torch.float64).log_softmax(-1)
    true = log_probs.gather(-1, targets.expand(len(outputs), -1).unsqueeze(-1)).squeeze(-1)
    generator = torch.Generator().manual_seed(seed)
    found = [-true.mean(0)]
    for size in range(2, len(outputs) + 1):
        many = 1 if size == len(outputs) else subsets
        chosen = [torch.randperm(len(outputs), generator=generator)[:size] for _ in range(many)]
        found.append(torch.stack([math.log(size) - true[each].logsumexp(0) for each in chosen]).mean(0))
    return torch.stack(found)


def _grid(ticks: Sequence[Sequence[float]]) -> list[list[float]]:
    made: list[list[float]] = [[]]
    for each in ticks:
        made = [[*before, tick] for before in made for tick in each]
    return made


def _linear(x: Tensor, y: Tensor, exponents: list[float]) -> tuple[float, Tensor, list[float]]:
    """Error, solution and exponents of the linear part; columns whose factor would be negative are left out."""
    columns = torch.cat(
        [torch.ones(len(x), 1, dtype=torch.float64), x ** -torch.tensor(exponents, dtype=torch.float64)], 1
    )
    used = list(range(columns.shape[1]))
    solution = torch.zeros(columns.shape[1], dtype=torch.float64)
    while True:
        part = torch.linalg.lstsq(columns[:, used], y[:, None]).solution[:, 0]
        negative = [place for place, value in zip(used, part, strict=True) if place and value < 0]
        if not negative:
            break
        used = [place for place in used if place not in negative]
    solution[used] = part
    return float((columns @ solution - y).square().sum()), solution, exponents
