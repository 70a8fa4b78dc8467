"""What a cascade would do with rows on which all members have answered: costs and figures of windows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from pluria.pool.cascade import Cascade, Window, inside
from pluria.pool.cascade_scores import MEANS
from pluria.pool.temperature import fit_temperature

Windows = tuple[Window | None, ...]


@dataclass(frozen=True, eq=False)
class Answered:
    """Answers `[S, N, C]` and scores `[S, N]` after each stage, costs of the stages `[S]` that sum to one, and targets.

    `at` is the risk, coverage or share that the task is asked at.
    """

    answers: Tensor
    scores: Tensor
    costs: Tensor
    y: Tensor | None
    task: str
    at: float

    def left(self, windows: Windows) -> Tensor:
        """The stage at which each row leaves, int64 `[N]`."""
        stage = torch.zeros(self.scores.shape[1], dtype=torch.int64)
        for place, window in enumerate(windows):
            stage += (stage == place) & inside(self.scores[place], window)
        return stage

    def reached(self, windows: Windows) -> tuple[float, ...]:
        """The share of the rows that comes to each stage."""
        left = self.left(windows)
        return tuple(float((left >= place).double().mean()) for place in range(len(self.costs)))

    def cost(self, windows: Windows) -> float:
        """Mean cost as a share of asking all."""
        return float(self.costs.cumsum(0)[self.left(windows)].mean())

    def figure(self, windows: Windows) -> float:
        """What the task is about; smaller is better."""
        left = self.left(windows)[None]
        answers = self.answers.gather(0, left[..., None].expand(1, -1, self.answers.shape[-1]))[0]
        return FIGURES[self.task](self, answers, self.scores.gather(0, left)[0])

    def losses(self) -> Tensor:
        """Loss of each row after each stage, float64 `[S, N]`: 0/1, or the NLL under the temperature of asking all."""
        assert self.y is not None
        if self.task == "error":
            return _wrong(self.answers, self.y)
        scale = fit_temperature(self.answers[-1], self.y)
        return torch.stack([nll_loss(scale(answer), self.y, reduction="none") for answer in self.answers])

    def risks(self, answers: Tensor, scores: Tensor) -> Tensor:
        """Error among the k least uncertain rows, for k = 1..N."""
        wrong = _wrong(answers, self.y)[scores.argsort(stable=True)]
        return wrong.cumsum(0) / torch.arange(1, len(wrong) + 1)

    def rank(self, stage: int) -> float:
        """The share of the rows that is on the near side of the decision after a stage."""
        if self.task != "coverage":
            return self.at
        accepted = self._accepted(self.risks(self.answers[stage], self.scores[stage]))
        if accepted == 0:
            raise ValueError(f"no coverage has a risk of {self.at} or less after stage {stage + 1}; allow more")
        return accepted

    def _accepted(self, risks: Tensor) -> float:
        found = (risks <= self.at).nonzero()
        return (int(found.max()) + 1) / len(risks) if len(found) else 0.0


def answered(
    shape: Cascade, outputs: Tensor, weights: Tensor | None, y: Tensor | None, *, task: str, at: float
) -> Answered:
    """Answers and scores of all members' outputs `[K, N, C]`, stage by stage."""
    done: list[int] = []
    answers, scores = [], []
    for stage, members in enumerate(shape.stages):
        done += members
        some = None if weights is None else weights[done]
        answers.append(MEANS[shape.pool](outputs[done].to(torch.float64), some))
        scores.append(shape.scored(stage, outputs, weights))
    costs = torch.tensor([sum(shape.costs[member] for member in stage) for stage in shape.stages], dtype=torch.float64)
    return Answered(torch.stack(answers), torch.stack(scores), costs / costs.sum(), y, task, at)


def _wrong(answers: Tensor, y: Tensor | None) -> Tensor:
    assert y is not None
    return torch.ne(answers.argmax(-1), y).to(torch.float64)


def _nll(rows: Answered, answers: Tensor, scores: Tensor) -> float:
    assert rows.y is not None
    return float(nll_loss(fit_temperature(answers, rows.y)(answers), rows.y))


def _error(rows: Answered, answers: Tensor, scores: Tensor) -> float:
    return float(_wrong(answers, rows.y).mean())


def _coverage(rows: Answered, answers: Tensor, scores: Tensor) -> float:
    return -rows._accepted(rows.risks(answers, scores))


def _risk(rows: Answered, answers: Tensor, scores: Tensor) -> float:
    risks = rows.risks(answers, scores)
    return float(risks[max(1, round(rows.at * len(risks))) - 1])


FIGURES: dict[str, Callable[[Answered, Tensor, Tensor], float]] = {
    "nll": _nll,
    "error": _error,
    "coverage": _coverage,
    "risk": _risk,
}
"""(rows, answers `[N, C]`, scores `[N]`) -> the figure of a task. Of unknown examples there are no rows."""
