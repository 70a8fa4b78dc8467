"""One batch of requests: members run one after the other, and each request is told as soon as it has its answer.

An example leaves the batch when the cascade of the file asks no more of it, or when its answer no longer changes by its
request's rule; the others go on without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.serve.answers import Answers, answers
from pluria.serve.jobs import Job
from pluria.serve.panel import Panel


def run_batch(panel: Panel, jobs: Sequence[Job]) -> list[int]:
    """Answer all jobs; how many members each example has seen. ValueError where the network gives NaN or Inf."""
    batch = Batch(panel, tuple(jobs))
    for outputs in panel.members(batch):
        batch.add(outputs)
        batch.watch()
        batch.tell()
        if not batch.open:
            break
    return batch.seen.tolist()


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the examples of a job lie in its batch."""

    job: Job
    rows: slice


class Batch:
    """A batch under way. It is what the members go through: each meets the examples that are still open."""

    def __init__(self, panel: Panel, jobs: tuple[Job, ...]) -> None:
        ends = torch.tensor([len(job.inputs) for job in jobs]).cumsum(0).tolist()
        self.panel, self.inputs = panel, torch.cat([job.inputs for job in jobs])
        self.open = [_Places(job, slice(end - len(job.inputs), end)) for job, end in zip(jobs, ends, strict=True)]
        self.ruled = [places for places in self.open if places.job.rule is not None]
        count, rows = len(panel.weights), len(self.inputs)
        self.outputs = torch.zeros(count, rows, len(panel.classes))
        self.weights = torch.zeros(count, rows, dtype=torch.float64)
        self.seen = torch.zeros(rows, dtype=torch.int64)
        self.active = torch.ones(rows, dtype=torch.bool)
        self.done, self.history = 0, list[Tensor]()
        self.order = list(panel.order)
        stages = panel.pooling.rule.stages if panel.pooling.rule else ()
        self.ends = {sum(map(len, stages[: stage + 1])): stage for stage in range(len(stages) - 1)}

    def __iter__(self) -> Iterator[Tensor]:
        yield self.inputs if bool(self.active.all()) else self.inputs[self.active]

    def add(self, outputs: Tensor) -> None:
        """The outputs of the next member on the examples that it met."""
        member = self.order[self.done]
        self.outputs[member, self.active] = outputs
        self.weights[member, self.active] = self.panel.weights[member]
        self.seen += self.active
        self.done += 1

    @property
    def last(self) -> bool:
        """Whether all members have been run."""
        return self.done == len(self.panel.weights)

    @property
    def seen_members(self) -> list[int]:
        """The members that have been run, in their order."""
        return self.order[: self.done]

    def watch(self) -> None:
        """Close the examples whose answer no longer changes, and those that nobody waits for."""
        for places in self.open:
            if places.job.dropped:
                self.active[places.rows] = False
        if not self.last:
            self._gate()
            self._still()

    def _gate(self) -> None:
        """After a stage of a cascade, close the examples that the next stage is not asked for."""
        rule, at = self.panel.pooling.rule, self.active.nonzero()[:, 0]
        if rule is not None and self.done in self.ends and len(at):
            self.active[at] = rule.goes_on(self.ends[self.done], self.outputs[:, at], self.panel.weights)

    def _still(self) -> None:
        """Close the examples whose answer stands still, by the rule of their request."""
        # A first member of weight zero has no say, so there is no answer yet.
        if not self.ruled or not bool(self.panel.weights[self.seen_members].any()):
            return
        at = torch.cat([torch.arange(places.rows.start, places.rows.stop) for places in self.ruled])
        found = self.panel.pooling(self.outputs[self.seen_members][:, at], self.weights[self.seen_members][:, at])
        self.history.append(found.double().exp())
        start = 0
        for places in self.ruled:
            stop = start + len(places.job.inputs)
            recent = torch.stack([answer[start:stop] for answer in self.history])
            if places.job.rule is not None:
                self.active[places.rows] &= ~places.job.rule.stopped(recent)
            start = stop

    def tell(self) -> None:
        """Tell the jobs that are finished their answer, and those that stream what they have so far."""
        whole: Answers | None = None
        left = []
        for places in self.open:
            finished = self.last or not bool(self.active[places.rows].any())
            if (finished or places.job.stream) and not places.job.dropped and bool(self.weights.any()):
                whole = whole or self._answers()
                self._tell(places, whole, finished)
            if not finished:
                left.append(places)
        self.open = left

    def _answers(self) -> Answers:
        pooling = self.panel.pooling
        return answers(pooling, self.outputs[self.seen_members], self.weights[self.seen_members], self.seen)

    def _tell(self, places: _Places, whole: Answers, finished: bool) -> None:
        records = whole.records(places.rows, self.panel.classes, members=places.job.members)
        places.job.tell({"done": finished, "members": self.done, "answers": records})
