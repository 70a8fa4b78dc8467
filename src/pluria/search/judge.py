"""What an ensemble is worth: pool and temperature fitted on one half of the rows seen, scored on the other, both ways.

    loss = ( NLL of half B under what half A fits  +  NLL of half A under what half B fits ) / 2

So no row is scored by what it fitted, and all rows choose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pluria.recipe.costs import stored
from pluria.recipe.outputs import Outputs
from pluria.recipe.plan import Job
from pluria.recipe.pools import CHOICE, Pool, answer
from pluria.recipe.source import Sources
from pluria.score import nll
from pluria.search.members import Members, sizes


@dataclass(frozen=True)
class Candidate:
    """The first members of a kind behind a pool, with its loss on calibration rows and what it costs.

    `scaled` says whether a temperature is fitted; without one the pool is the mean of the probabilities. `asked` is the
    mean number of members that a cascade asked of each example; None: the pool asks all.
    """

    job: Job
    pool: Pool
    scaled: bool
    loss: float
    bits: int
    asked: float | None = None

    @property
    def forwards(self) -> float:
        """Members that answer each example, on average."""
        return self.job.size if self.asked is None else self.asked

    @property
    def name(self) -> str:
        """Name of the kind at this size."""
        return self.job.name

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        arm = self.job.arm.model_dump(mode="json", exclude={"each", "beyond"})
        told = {"name": self.name, "pool": self.pool, "temperature": self.scaled, "nll": self.loss}
        return {**told, "forwards": self.forwards, "bits": self.bits, "arm": arm}


def bits(job: Job, sources: Sources) -> int:
    """Bits of all members of an arm, for each network in the smaller form: member by member, or as bit planes."""
    each = [stored(job, network, sources[network]) for network in job.arm.networks]
    return sum(min(one["bits_members"], one["bits_planes"]) for one in each)


def sized(job: Job, members: int) -> Job:
    """The kind with its first members alone; all its views stay in its name, so what is kept is found."""
    if members == job.arm.members:
        return job
    head, times, tail = job.name.partition(f" × {job.arm.members}")
    shown = f" × {members}" if members > 1 else ""
    return replace(
        job, name=f"{head}{shown if times else ''}{tail}", arm=job.arm.model_copy(update={"members": members})
    )


def judged(
    members: Members,
    job: Job,
    look: int,
    pools: Sequence[Pool],
    most: float | None,
    within: float | None = None,
) -> list[Candidate]:
    """Every size of a kind up to its own under every pool, on the rows up to a look.

    As far as memory allows (`most` bits), and those alone that ask `within` members of an example or fewer, on average.
    """
    found = []
    for size in sizes(job.arm.members):
        one = sized(job, size)
        held = bits(one, members.sources)
        if most is not None and held > most:
            break
        halves = members.outputs(one, size, look)
        raw = sum(float(nll(half.pooled(), half.y).mean()) for half in halves) / 2
        found.append(Candidate(one, CHOICE[0], False, raw, held))
        # One answer is its own mean, and pools that weigh or bend several have nothing to do.
        for pool in pools if one.size > 1 else CHOICE[:1]:
            try:
                loss, asked = _crossed(pool, *halves)
            except ValueError:
                continue  # too few rows for a pool that labels fit
            found.append(Candidate(one, pool, True, loss, held, asked))
    return [one for one in found if within is None or one.forwards <= within]


def _crossed(pool: Pool, one: Outputs, other: Outputs) -> tuple[float, float | None]:
    """The loss of a pool with its temperature, each half answered by what the other fits, and how many it asks."""
    losses, asked = [], []
    for fit, judge in ((one, other), (other, one)):
        fitted = answer(pool, fit)
        losses.append(float(nll(fitted(judge), judge.y).mean()))
        spent = fitted.asked(judge.logits)
        asked += [] if spent is None else [spent.members]
    return sum(losses) / 2, sum(asked) / 2 if asked else None
