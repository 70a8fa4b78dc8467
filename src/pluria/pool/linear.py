"""Linear pool: a weighted mean of the members' probabilities, with fitted weights, flat or in two tiers.

    p = sum_k w_k p_k        w_k >= 0, sum_k w_k = 1        maximise  mean_n log p(y_n)

The mean log-likelihood is concave in the weights. With + sum_k w_k added to its negative the simplex needs no care:
the minimum over w >= 0 sums to one. In two tiers, weights are first fitted within each group (or are equal there),
then between the groups' pooled answers: w_k = (between groups) (within the group). That asks less of few rows than all
weights at once. Sources: Wolpert, Neural Networks 1992 (stacking); Smyth and Wolpert, Machine Learning 1999 (of
densities).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from pluria.pool.average import mean_probability
from pluria.pool.newton import Slopes, nonnegative_minimum
from pluria.pool.rows import at_targets, check_members, fitting_rows

Group = int | str


@dataclass(frozen=True)
class Linear:
    """A fitted linear pool: calls map `[K, N, ..., C]` (logits or log-probabilities) to `[N, ..., C]`.

    `weights` has one number for each member and sums to one; it also goes into `Ensemble.reweight` and any other pool,
    as a tensor. `groups` names the group of each member where the fit had two tiers. The fields are plain data:
    `Linear(**dataclasses.asdict(pool))` is the same pool, through JSON as well.

    >>> pool = Linear((0.75, 0.25, 0.0), groups=("a", "a", "b"))
    >>> pool(torch.tensor([[[0.8, 0.2]], [[0.4, 0.6]], [[0.5, 0.5]]]).log()).exp()
    tensor([[0.7000, 0.3000]])
    >>> pool.between
    {'a': 1.0, 'b': 0.0}
    """

    weights: tuple[float, ...]
    groups: tuple[Group, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", tuple(self.weights))
        object.__setattr__(self, "groups", None if self.groups is None else tuple(self.groups))
        if not all(w >= 0 for w in self.weights) or not math.isclose(sum(self.weights), 1.0, rel_tol=1e-9):
            raise ValueError(f"weights must be 0 or more and sum to one; got {self.weights}")
        if self.groups is not None and len(self.groups) != len(self.weights):
            raise ValueError(f"{len(self.weights)} members need a group each; got {self.groups}")

    def __call__(self, log_probs: Tensor) -> Tensor:
        """Pooled log-probabilities `[N, ..., C]` in the dtype of `log_probs` `[K, N, ..., C]`."""
        check_members(log_probs, len(self.weights))
        return mean_probability(log_probs, torch.tensor(self.weights, dtype=torch.float64))

    @property
    def between(self) -> dict[Group, float]:
        """The weight of each group, in order of appearance; empty where the fit was flat."""
        pairs = list(zip(self.groups or (), self.weights, strict=False))
        return {group: sum(w for g, w in pairs if g == group) for group, _ in pairs}


def fit_linear(
    log_probs: Tensor,
    y: Tensor,
    *,
    groups: Sequence[Group] | None = None,
    within: Literal["fitted", "equal"] = "fitted",
    ignore_index: int = -100,
) -> Linear:
    """The weights of least mean NLL of members' `log_probs` `[K, N, ..., C]` (or logits) at classes `y` `[N, ...]`.

    groups   one number or name for each member: fit in two tiers
    within   weights inside a group: fitted on its members alone, or equal

    Fit it on rows that no member was trained on: weights go to members that know the rows by heart. Rows whose target
    is `ignore_index` do not count. Deterministic.
    Raises TypeError for log-probabilities that are not floating point; ValueError for shapes that do not fit, targets
    that are no class, fewer than max(20, 2 K) rows, NaN, +inf, a target that all members hold impossible, and groups
    that do not name every member.
    """
    if within not in ("fitted", "equal"):
        raise ValueError(f"within must be 'fitted' or 'equal', not {within!r}")
    rows, targets = fitting_rows(log_probs, y, ignore_index)
    likelihoods = at_targets(rows, targets)
    if groups is None:
        return Linear(tuple(_simplex(likelihoods).tolist()))
    names = tuple(groups)
    if len(names) != len(rows):
        raise ValueError(f"{len(rows)} members need a group each; got {names}")
    return Linear(tuple(_tiers(likelihoods, names, within).tolist()), names)


def _tiers(likelihoods: Tensor, names: tuple[Group, ...], within: str) -> Tensor:
    """Weights `[K]`: those between groups times those within."""
    inside = torch.zeros(len(names), dtype=torch.float64)
    pooled = []
    for name in (order := list(dict.fromkeys(names))):
        own = torch.tensor([i for i, other in enumerate(names) if other == name])
        inside[own] = _simplex(likelihoods[own]) if within == "fitted" else 1 / len(own)
        pooled.append((likelihoods[own] + inside[own, None].log().to(likelihoods.device)).logsumexp(0))
    between = _simplex(torch.stack(pooled))
    return inside * between[[order.index(name) for name in names]]


def _simplex(likelihoods: Tensor) -> Tensor:
    """Weights `[K]` of the largest mean log of the mixture, for log-likelihoods `[K, M]` of the targets."""
    best = likelihoods.amax(0)
    possible = best > -torch.inf  # rows that a group cannot explain with any weights say nothing about them
    relative = (likelihoods - best)[:, possible].exp()

    def slopes(weights: Tensor) -> Slopes:
        mixture = weights.to(relative.device) @ relative
        ratio = relative / mixture
        value = float(weights.sum() - mixture.log().mean())
        return value, 1 - ratio.mean(1).cpu(), (ratio @ ratio.T / relative.shape[1]).cpu()

    if relative.shape[1] == 0:
        return torch.full((len(likelihoods),), 1 / len(likelihoods), dtype=torch.float64)
    found = nonnegative_minimum(torch.full((len(likelihoods),), 1 / len(likelihoods), dtype=torch.float64), slopes)
    return found / found.sum()
