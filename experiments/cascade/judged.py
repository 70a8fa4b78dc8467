"""Rules that ask all or one, how good a rule is on the figure rows, and what is kept of a gain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from experiments.cascade.members import Set
from torch import Tensor

from pluria.pool import Cascade, fit_temperature, mean_logit, mean_probability
from pluria.score import error, nll, paired_bootstrap

POOLS = {"mean_logit": mean_logit, "mean_probability": mean_probability}
DRAWS = 500


@dataclass(frozen=True, eq=False)
class Judged:
    """A rule on the figure rows: NLL after a temperature, errors, and who was asked."""

    nll: Tensor
    wrong: Tensor
    asked: Tensor

    def cost(self, macs: Sequence[float]) -> dict[str, float]:
        shares = self.asked.double().mean(1)
        work = torch.tensor(macs, dtype=torch.float64)
        return {
            "forwards": float(shares.sum()),
            "share of forwards": float(shares.mean()),
            "MMACs": float(shares @ work),
            "share of MACs": float(shares @ work / work.sum()),
        }


def judged(rule: Cascade, held: Set, y: dict[str, Tensor]) -> Judged:
    """A cascade and its temperature on the figure rows."""
    scale = fit_temperature(rule(held.logits["calibration"].double()), y["calibration"])
    logits = held.logits["figures"]
    answers = scale(rule(logits.double()))
    return Judged(nll(answers, y["figures"]), error(answers, y["figures"]), rule.asked(logits))


def fixed(held: Set, pool: str, *, every: bool) -> Cascade:
    """All members of every example, or the first alone."""
    count, classes = len(held.names), held.logits["figures"].shape[-1]
    window = (None, None) if every else None
    return Cascade(tuple((i,) for i in range(count)), (window,) * (count - 1), classes, held.macs, pool)


def calibrated(rule: Cascade, held: Set, y: dict[str, Tensor]) -> float:
    """NLL after temperature on the images of the fit."""
    answers = rule(held.logits["calibration"].double())
    return float(nll(fit_temperature(answers, y["calibration"])(answers), y["calibration"]).mean())


def best_pool(held: Set, y: dict[str, Tensor]) -> str:
    """The pool of all members that is better after a temperature, on the images of the fit."""
    return min(POOLS, key=lambda pool: calibrated(fixed(held, pool, every=True), held, y))


def best_single(held: Set, y: dict[str, Tensor]) -> tuple[str, Judged]:
    """The member that is best after a temperature, on the images of the fit."""
    alone = [held.take([i]) for i in range(len(held.names))]
    rules = [fixed(one, "mean_logit", every=True) for one in alone]
    losses = [calibrated(rule, one, y) for rule, one in zip(rules, alone, strict=True)]
    best = min(range(len(losses)), key=losses.__getitem__)
    return held.names[best], judged(rules[best], alone[best], y)


def band(one: Tensor, other: Tensor) -> list[float]:
    found = paired_bootstrap(one, other, seed=0)
    return [found.estimate, found.low, found.high]


def kept_share(start: Tensor, cascade: Tensor, whole: Tensor) -> list[float]:
    """Share of the gain from `start` to `whole` that the cascade keeps, with its bootstrap interval over rows."""
    losses = torch.stack([start, cascade, whole], 1).double()
    picks = torch.randint(len(losses), (DRAWS, len(losses)), generator=torch.Generator().manual_seed(0))
    means = torch.cat([losses.mean(0)[None], *(losses[some].mean(1) for some in picks.split(50))])
    shares = (means[:, 0] - means[:, 1]) / (means[:, 0] - means[:, 2])
    low, high = shares[1:].quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return [float(shares[0]), low, high]
