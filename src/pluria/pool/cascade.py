"""A cascade: members are asked stage by stage, and an example leaves as soon as its score leaves the stage's window.

    u_s      score of the answer of the members asked up to stage s (see `cascade_scores`); larger is less certain
    goes on  from stage s to the next   while  low_s <= u_s <= high_s
    w_kn     1 where member k was asked for example n, else 0 (times the member's mixing weight)
    answer   the pool of outputs with weights w, so of the members that were asked alone

A threshold (high_s open) sends the least certain examples on, which serves accuracy and NLL. A window around the point
of a decision serves decisions: whether an example is accepted, or is of a known kind, can change near it alone.
`fit_cascade` fits the windows. A temperature comes behind: `Chain((cascade, temperature))`.
Sources: Wang et al., ICLR 2022 (thresholds); Xia and Bouganis, ICCV 2023 (windows).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.core.weights import spread_weights
from pluria.pool.cascade_scores import MEANS, SCORES, Seen
from pluria.pool.rows import check_classes, check_members

Window = tuple[float | None, float | None]
"""(low, high), both included; None: open."""


@dataclass(frozen=True)
class Cascade:
    """A fitted cascade: calls map outputs `[K, N, C]` (and mixing weights) to log-probabilities `[N, C]`.

    stages    positions of the members that each stage asks; every member is asked by one stage
    windows   for each stage but the last, whose examples go on; None: nobody's
    classes   C
    costs     what asking each member costs for one example, `[K]`, in `unit`: forwards, MACs, bits, seconds
    pool      `mean_logit` or `mean_probability`            score   a name in `SCORES`
    reached   the share of the rows of the fit that came to each stage; empty: not known

    >>> cascade = Cascade(((0,), (1,)), ((0.3, None),), classes=2, costs=(1.0, 3.0), pool="mean_probability")
    >>> outputs = torch.tensor([[[0.9, 0.1], [0.6, 0.4]], [[0.5, 0.5], [0.2, 0.8]]]).log()
    >>> cascade(outputs).exp()  # the first is sure enough
    tensor([[0.9000, 0.1000],
            [0.4000, 0.6000]])
    >>> cascade.spent(cascade.asked(outputs))
    Spent(members=1.5, cost=2.5, share=0.625, reached=(1.0, 0.5))
    """

    stages: tuple[tuple[int, ...], ...]
    windows: tuple[Window | None, ...]
    classes: int
    costs: tuple[float, ...]
    pool: str = "mean_logit"
    score: str = "max_probability"
    unit: str = "forwards"
    reached: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "stages", tuple(tuple(stage) for stage in self.stages))
        object.__setattr__(self, "windows", tuple(None if one is None else _window(one) for one in self.windows))
        object.__setattr__(self, "costs", tuple(map(float, self.costs)))
        object.__setattr__(self, "reached", tuple(map(float, self.reached)))
        check_stages(self.stages, len(self.costs))
        if len(self.windows) != len(self.stages) - 1:
            raise ValueError(f"{len(self.stages)} stages have {len(self.stages) - 1} windows; got {len(self.windows)}")
        if self.pool not in MEANS or self.score not in SCORES:
            raise ValueError(
                f"a cascade has a pool, one of {', '.join(MEANS)}, and a score, one of {', '.join(SCORES)}; got "
                f"{self.pool!r} and {self.score!r}"
            )
        if self.score == "settled" and self.pool != "mean_probability":
            raise ValueError("the score 'settled' holds for the pool mean_probability: others have no bound")
        if not all(0 <= cost < float("inf") for cost in self.costs) or sum(self.costs) <= 0:
            raise ValueError(f"costs are finite, not negative and not all zero; got {self.costs}")
        if type(self.classes) is not int or self.classes < 1 or not isinstance(self.unit, str):
            raise ValueError(
                f"classes are a number, one or more, and a unit is a word; got {self.classes!r} and {self.unit!r}"
            )
        if self.reached and len(self.reached) != len(self.stages):
            raise ValueError(f"{len(self.stages)} stages are reached by as many shares; got {len(self.reached)}")

    @property
    def members(self) -> int:
        """K."""
        return len(self.costs)

    def __call__(self, outputs: Tensor, weights: Tensor | None = None) -> Tensor:
        """Log-probabilities `[N, C]` of the members that each example asks; what others say is not read."""
        return MEANS[self.pool](outputs, self.weights(outputs, weights))

    def weights(self, outputs: Tensor, weights: Tensor | None = None) -> Tensor:
        """Mixing weights float64 `[K, N]`, 0 where a member was not asked; `weights` `[K]` or `[K, N]`, None: equal."""
        return spread_weights(outputs, weights) * self.asked(outputs, weights)

    def asked(self, outputs: Tensor, weights: Tensor | None = None) -> Tensor:
        """Which members each example asks, bool `[K, N]`; their outputs alone are read.

        Raises ValueError for outputs that are not `[K, N, C]` of as many members and classes as the cascade is for, and
        where the members of the first stage have no weight.
        """
        self._check(outputs)
        found = torch.zeros(outputs.shape[:2], dtype=torch.bool, device=outputs.device)
        for _, members, rows in self.steps(outputs, weights):
            found[torch.tensor(members, device=outputs.device)[:, None], rows] = True
        return found

    def steps(self, outputs: Tensor, weights: Tensor | None = None) -> Iterator[tuple[int, tuple[int, ...], Tensor]]:
        """(stage, members it asks, rows `[n]` that reach it), until none is left. `outputs` may fill in meanwhile."""
        rows = torch.arange(outputs.shape[1], device=outputs.device)
        for stage, members in enumerate(self.stages):
            yield stage, members, rows
            own = weights if weights is None or weights.ndim == 1 else weights[:, rows]
            rows = rows[self.goes_on(stage, outputs[:, rows], own)]
            if len(rows) == 0:
                return

    def goes_on(self, stage: int, outputs: Tensor, weights: Tensor | None = None) -> Tensor:
        """Which examples go on from a stage, bool `[n]`, by outputs `[K, n, C]`; those of members asked are read."""
        window = self.windows[stage] if stage < len(self.windows) else None
        if window is None or window == (None, None):  # no score is needed
            return torch.full(outputs.shape[1:2], window is not None, device=outputs.device)
        return inside(self.scored(stage, outputs, weights), window)

    def scored(self, stage: int, outputs: Tensor, weights: Tensor | None = None) -> Tensor:
        """The score after a stage, float64 `[n]`, by outputs `[K, n, C]` of the members asked up to it."""
        done = sum(self.stages[: stage + 1], ())
        spread = spread_weights(outputs, weights)
        own = spread[list(done)]
        left = spread.sum(0) - own.sum(0) if len(done) < self.members else torch.zeros_like(own[0])
        if not bool((own.sum(0) > 0).all()):
            raise ValueError(f"members {list(done)} have no weight, so stage {stage + 1} has no answer to judge")
        return SCORES[self.score](Seen(outputs[list(done)], own, left, len(done) - len(self.stages[stage]), self.pool))

    def spent(self, asked: Tensor) -> Spent:
        """What was asked, bool `[K, N]`, as means over the examples."""
        shares = asked.to(torch.float64).mean(1)
        cost = float((shares * torch.tensor(self.costs, dtype=torch.float64, device=asked.device)).sum())
        reached = tuple(float(shares[stage[0]]) for stage in self.stages)
        return Spent(float(shares.sum()), cost, cost / sum(self.costs), reached)

    def explain(self) -> str:
        """The rule in words, and what it cost on the rows it was fitted on."""
        return "\n".join(_said(self))

    def _check(self, outputs: Tensor) -> None:
        if outputs.ndim != 3:
            raise ValueError(f"a cascade asks for whole examples: outputs are [K, N, C], not {list(outputs.shape)}")
        check_members(outputs, self.members)
        check_classes(outputs, self.classes)


@dataclass(frozen=True)
class Spent:
    """Means over examples: members asked, their cost, its share of asking all, and the share reaching each stage."""

    members: float
    cost: float
    share: float
    reached: tuple[float, ...]


def inside(scores: Tensor, window: Window | None) -> Tensor:
    """Which scores `[n]` lie in a window, bool `[n]`."""
    if window is None:
        return torch.zeros_like(scores, dtype=torch.bool)
    low, high = window
    return (scores >= (-torch.inf if low is None else low)) & (scores <= (torch.inf if high is None else high))


def check_stages(stages: Sequence[Sequence[int]], members: int) -> None:
    """Raise ValueError unless every one of so many members stands in one stage."""
    named = [member for stage in stages for member in stage]
    if not all(isinstance(one, int) for one in named) or sorted(named) != list(range(members)) or not all(stages):
        raise ValueError(f"every member 0..{members - 1} is asked by one stage, and no stage is empty; got {stages}")


def _window(given: Sequence[float | None]) -> Window:
    low, high = (None if end is None else float(end) for end in given)
    if not (-torch.inf if low is None else low) <= (torch.inf if high is None else high):
        raise ValueError(f"a window is (low, high), numbers or None for an open end, low first; got {tuple(given)}")
    return low, high


def _said(cascade: Cascade) -> Iterator[str]:
    total = sum(cascade.costs)
    for place, stage in enumerate(cascade.stages):
        names = ("member " if len(stage) == 1 else "members ") + ", ".join(map(str, stage))
        cost = f"{sum(cascade.costs[member] for member in stage):.4g} {cascade.unit}"
        share = f", by {cascade.reached[place]:.1%} of the rows of the fit" if cascade.reached else ""
        yield f"Stage {place + 1} asks {names} ({cost}){share}."
        if place < len(cascade.windows):
            yield f"  {_rule(cascade.windows[place], cascade.score)}"
    if cascade.reached:
        each = [sum(cascade.costs[member] for member in stage) for stage in cascade.stages]
        mean = sum(share * cost for share, cost in zip(cascade.reached, each, strict=True))
        yield f"There an example cost {mean:.4g} {cascade.unit}, {mean / total:.1%} of asking all ({total:.4g})."
    yield f"The answer is {cascade.pool} of the members that were asked."


def _rule(window: Window | None, score: str) -> str:
    if window is None:
        return "No example goes on."
    low, high = window
    if low is None and high is None:
        return "Every example goes on."
    lower, upper = (None if end is None else f"{end:.6g}" for end in window)
    bounds = f"at least {lower}" if upper is None else f"at most {upper}" if lower is None else f"{lower} to {upper}"
    return f"An example goes on while its {score} is {bounds}."
