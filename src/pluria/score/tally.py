"""A score is a finish of sums of per-example statistics, so shards, batches and machines reduce by addition.

    figure = finish( sum_n statistics(row n), count )

Scores that are no such sums (AUROC, AURC, adaptive ECE, CORP, bootstrap) take all pooled rows at once and are plain
functions elsewhere in this package.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from pluria.score.members import MemberSums, member_sums
from pluria.score.rows import IGNORED


@dataclass(frozen=True, eq=False)
class Rows:
    """What a score may look at: pooled predictions, targets, and the members' outputs or their sums where given."""

    pooled: Tensor
    y: Tensor | None = None
    outputs: Tensor | None = None
    weights: Tensor | None = None
    sums: MemberSums | None = None

    @property
    def targets(self) -> Tensor:
        """The targets; `ValueError` where none were given."""
        if self.y is None:
            raise ValueError("this score needs targets: pass y to tally")
        return self.y

    @cached_property
    def members(self) -> MemberSums:
        """The sums over members; `ValueError` where neither outputs nor sums were given."""
        if self.sums is not None:
            return self.sums
        if self.outputs is None:
            raise ValueError("this score needs the members: pass outputs (and weights) or members to tally")
        return member_sums(self.outputs, self.weights)

    def keep(self, kept: Tensor) -> "Rows":
        """Some of the rows: `kept` is a mask `[N]`."""
        return Rows(
            self.pooled[kept],
            None if self.y is None else self.y[kept],
            None if self.outputs is None else self.outputs[:, kept],
            self.weights[:, kept] if self.weights is not None and self.weights.ndim == 2 else self.weights,
            None if self.sums is None else self.sums.rows(kept),
        )


Statistics = Callable[[Rows], Mapping[str, Tensor]]
Finish = Callable[[Mapping[str, Tensor], int], float]


def mean_of_one(sums: Mapping[str, Tensor], count: int) -> float:
    """The mean over examples of a score's only statistic."""
    (total,) = sums.values()
    return float(total) / count


@dataclass(frozen=True)
class Score:
    """A named figure: statistics give float tensors `[N, ...]` per example, finish maps their sums and N to a float."""

    name: str
    statistics: Statistics
    finish: Finish = mean_of_one
    better: Literal["lower", "higher", "none"] = "lower"


@dataclass(frozen=True, eq=False)
class Tally:
    """Sums of the scores' statistics over `count` rows; `+` merges shards. A tally without rows is the zero.

    `sums` maps "score/statistic" to float64 tensors.
    """

    scores: tuple[Score, ...]
    count: int = 0
    sums: Mapping[str, Tensor] = field(default_factory=dict)

    def __add__(self, other: "Tally") -> "Tally":
        mine, theirs = ([s.name for s in t.scores] for t in (self, other))
        if mine != theirs:
            raise ValueError(f"tallies of other scores cannot be added: {mine} and {theirs}")
        if self.count == 0 or other.count == 0:
            return other if self.count == 0 else self
        merged = {name: value + other.sums[name] for name, value in self.sums.items()}
        return Tally(self.scores, self.count + other.count, merged)

    def figures(self) -> dict[str, float]:
        """The finished figures by score name; `ValueError` if no row was counted."""
        if self.count == 0:
            raise ValueError("no row was counted, so there are no figures")
        return {score.name: score.finish(self._sums_of(score), self.count) for score in self.scores}

    def _sums_of(self, score: Score) -> dict[str, Tensor]:
        prefix = f"{score.name}/"
        return {name.removeprefix(prefix): value for name, value in self.sums.items() if name.startswith(prefix)}


def tally(
    scores: Sequence[Score],
    pooled: Tensor,
    y: Tensor | None = None,
    *,
    outputs: Tensor | None = None,
    weights: Tensor | None = None,
    members: MemberSums | None = None,
    ignore_index: int = IGNORED,
) -> Tally:
    """Sum the scores' statistics over the rows of one shard.

    `pooled` are pooled log-probabilities `[N, C]` (logits `[N, L]` for the binary scores, predictions `[N]` for
    regression), `y` the targets `[N, ...]` or None for scores that need none. Scores of diversity also need `outputs`
    `[K, N, C]` and `weights`, or `members`, their sums. Rows whose integer target `[N]` is `ignore_index` do not count.
    Refused with `ValueError`: two scores of one name, different numbers of rows, and what the scores refuse.

    >>> from pluria.score.proper import ERROR, NLL
    >>> log_probs = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    >>> figures = tally([NLL, ERROR], log_probs, torch.tensor([0, 0])).figures()
    >>> round(figures["nll"], 4), figures["error"]
    (1.0397, 0.5)
    """
    names = [score.name for score in scores]
    if len(set(names)) != len(names):
        raise ValueError(f"scores need names of their own: {names}")
    _check_rows(pooled, y, outputs, members)
    rows = Rows(pooled, y, outputs, weights, members)
    if y is not None and y.ndim == 1 and not y.is_floating_point():
        kept = y.long() != ignore_index  # in uint8, -100 would be class 156
        rows = rows if bool(kept.all()) else rows.keep(kept)
    if len(rows.pooled) == 0:
        return Tally(tuple(scores))
    sums = {f"{score.name}/{name}": value for score in scores for name, value in _sums(score, rows).items()}
    return Tally(tuple(scores), len(rows.pooled), sums)


def tally_members(scores: Sequence[Score], members: MemberSums, y: Tensor | None = None) -> Tally:
    """The tally of one shard of which only the sums over members are known, pooled by the mean of probabilities.

    Figures are those of `tally` with all outputs, within rounding: no `[K, N, C]` is needed. A probability below
    1e-308 is zero here, so that its NLL is infinite.
    """
    return tally(scores, members.mean_probs.log(), y, members=members)


def _sums(score: Score, rows: Rows) -> dict[str, Tensor]:
    statistics = score.statistics(rows)
    for name, values in statistics.items():
        if len(values) != len(rows.pooled):
            raise ValueError(f"{score.name}/{name} has {len(values)} values for {len(rows.pooled)} rows that count")
    return {name: values.to(torch.float64).sum(0) for name, values in statistics.items()}


def _check_rows(pooled: Tensor, y: Tensor | None, outputs: Tensor | None, members: MemberSums | None) -> None:
    given = {
        "y": y if y is None else len(y),
        "outputs": outputs if outputs is None else outputs.shape[1],
        "members": members if members is None else len(members.total),
    }
    for name, rows in given.items():
        if rows is not None and rows != len(pooled):
            raise ValueError(f"{name} has {rows} rows, the pooled predictions have {len(pooled)}")
