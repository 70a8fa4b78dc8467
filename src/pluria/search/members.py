"""Outputs of members on the calibration rows, kept one by one: whoever needs a member's outputs again has them.

A kind is an arm with its largest size. Its first k members do not change as k grows, so an ensemble of k, a larger one,
every pool of them and every company of networks share what is kept.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pluria.align.refresh import has_batch_norm
from pluria.recipe.folder import RunFolder
from pluria.recipe.outputs import Outputs
from pluria.recipe.plan import Job, draw, drawn_name
from pluria.recipe.prepare import Progress
from pluria.recipe.run import keep_outputs
from pluria.recipe.schema import Recipe
from pluria.recipe.source import Source, Sources
from pluria.search.ledger import Ledger
from pluria.search.order import Order
from pluria.zoo.dataset import Dataset


@dataclass
class Members:
    """What is kept, what it has cost, and how more comes."""

    recipe: Recipe
    sources: Sources
    rows: Dataset
    order: Order
    folder: RunFolder
    ledger: Ledger
    progress: Progress
    seen: set[tuple[str, str, int]] = field(default_factory=set)
    refreshed: dict[Hashable, int] = field(default_factory=dict)

    def price(self, job: Job, members: int, look: int) -> int:
        """Examples that would go through networks for the first members of a kind on all rows up to a look."""
        return sum(self._price(job, network, members, look) for network in job.arm.networks)

    def keep(self, job: Job, members: int, look: int) -> None:
        """Keep the outputs of the first members of a kind on all rows up to a look."""
        chunks = {name(self.order, i): self.rows.take(self.order.chunk(i)) for i in self.order.chunks(look)}
        for network in job.arm.networks:
            self._spend(job, network, members, look)
            self.keep_on(job, network, members, chunks)

    def keep_on(self, job: Job, network: str, members: int, rows: dict[str, Dataset]) -> None:
        """Keep outputs of one network's members on some rows by name; nothing is counted here."""
        place = job.place(network)
        wanted: dict[tuple[str, ...], list[int]] = {}
        for at in range(members):
            missing = tuple(part for part in rows if not self.folder.kept(place, part, at))
            wanted.setdefault(missing, []).append(at)
        wanted.pop((), None)
        if wanted:
            # All at once: those that take time are drawn and refreshed together, and kept with the source.
            draw(job, network, self.sources[network], list(range(members)))
        for parts, positions in wanted.items():
            some = {part: rows[part] for part in parts}
            for at in keep_outputs(self.recipe, self.sources[network], some, self.folder, job, network, positions):
                self.progress(f"{job.name}, member {at}", self.ledger.forwards, self.ledger.limit / self.ledger.unit)

    def keep_figures(self, job: Job, rows: Dataset) -> None:
        """Keep the outputs of all members of a kind on the figure rows."""
        for network in job.arm.networks:
            places = [(job.place(network), "figures", at) for at in range(job.arm.members)]
            fresh = [place for place in places if place not in self.seen]
            self.ledger.spend("figure rows", len(fresh) * len(rows))
            self.seen.update(fresh)
            self.keep_on(job, network, job.arm.members, {"figures": rows})

    def outputs(self, job: Job, members: int, look: int) -> tuple[Outputs, Outputs]:
        """Outputs of the first members on all rows up to a look, those of each half."""
        logits, first = self.logits(job, members, look), self.order.halves(look)
        y = self.rows.targets[torch.cat([self.order.chunk(i) for i in self.order.chunks(look)])]
        return Outputs.of(logits[:, first], y[first]), Outputs.of(logits[:, ~first], y[~first])

    def logits(self, job: Job, members: int, look: int) -> Tensor:
        """Logits `[K, N, ..., C]` on the chunks up to a look, in their order."""
        places = [job.place(network) for network in job.arm.networks]
        parts = [self.folder.outputs(places, members, name(self.order, i)) for i in self.order.chunks(look)]
        return torch.cat(parts, 1)

    def _price(self, job: Job, network: str, members: int, look: int) -> int:
        rows = sum(len(self.order.chunk(i)) for i, _ in self._unseen(job, network, members, look))
        return rows + self._refreshing(job, network, members)

    def _unseen(self, job: Job, network: str, members: int, look: int) -> list[tuple[int, tuple[str, str, int]]]:
        looks = self.order.chunks(look)
        places = ((i, (job.place(network), name(self.order, i), at)) for i in looks for at in range(members))
        return [(i, place) for i, place in places if place not in self.seen]

    def _refreshing(self, job: Job, network: str, members: int) -> int:
        """Refresh runs the reference and every member; a larger ensemble is refreshed anew."""
        source, known = self.sources[network], self.refreshed.get(drawn_name(job, network), 0)
        if not job.arm.refresh or not has_batch_norm(source.model) or members <= known:
            return 0
        return (members + 1) * examples(source)

    def _spend(self, job: Job, network: str, members: int, look: int) -> None:
        again = self._refreshing(job, network, members)
        unseen = self._unseen(job, network, members, look)
        self.ledger.spend("refresh", again)
        self.ledger.spend("calibration rows", sum(len(self.order.chunk(i)) for i, _ in unseen))
        self.seen.update(place for _, place in unseen)
        if again:
            self.refreshed[drawn_name(job, network)] = members


def name(order: Order, look: int) -> str:
    """Name of the part that a look adds, by the rows it begins and ends with."""
    low = order.stops[look - 1] if look else (0, 0)
    return f"look-{sum(low):06d}-{sum(order.stops[look]):06d}"


def examples(source: Source) -> int:
    """Unlabelled examples of a network."""
    return sum(len(batch) for batch in source.unlabelled)


def sizes(largest: int) -> Sequence[int]:
    """1, 2, 4, ... and the largest."""
    return sorted({2**j for j in range(largest.bit_length()) if 2**j <= largest} | {largest})
