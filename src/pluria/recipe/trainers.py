"""Training methods as a recipe calls them: (loop, method, network, options) -> (members, how many whole runs it took).

    points     snapshots of one run                     averaged   the mean of one run          drawn  draws around it
    fitted     a Gaussian in place of the weights       sampled    samples of the posterior
    several    a run for each member                    expanded   members that share most of a network
    joined     draws around several runs                mixed      points of a line or simplex that is learned at once

Each leaves the network as what the training ends with. What a method needs of a run, it is given; its other arguments
are a recipe's to set. Averages and draws get statistics of batch norm from the training rows.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluria.align.refresh import has_batch_norm, refresh
from pluria.core.ensemble import Ensemble
from pluria.numbers.key import Key
from pluria.predict.batches import call
from pluria.recipe.parts import Members
from pluria.train import (
    SWAG,
    Collector,
    Cycle,
    Population,
    Run,
    Snapshots,
    Span,
    along,
    cosine,
    cycles,
    every,
    restarted,
    simplex_shares,
    train,
)
from pluria.train.fresh import fresh_order
from pluria.zoo.dataset import IGNORED, Dataset

Left = tuple[Ensemble, int]
Rows = list[tuple[Tensor, Tensor]]
CPU = torch.device("cpu")
Make = Callable[..., Any]
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda params, rate, decay: torch.optim.SGD(params, rate, momentum=0.9, weight_decay=decay),
    "adam": lambda params, rate, decay: torch.optim.AdamW(params, rate, weight_decay=decay),
}


@dataclass(frozen=True)
class Loop:
    """The plain loop as a recipe says it. `file` begins the names of the checkpoints of its runs, by their numbers.

    Networks are moved to the device for a run, and back.
    """

    how: Members
    rows: Dataset
    device: torch.device = CPU
    file: Path | None = None
    progress: Callable[[float], None] = lambda done: None

    @property
    def key(self) -> Key:
        """The root of all that is drawn."""
        return Key(self.how.seed)

    @property
    def batches(self) -> int:
        """Whole batches of an epoch; the examples that fill none are other ones every time."""
        return max(1, len(self.rows) // self.how.batch)

    @property
    def steps(self) -> int:
        """Optimiser steps of a run."""
        return self.how.epochs * -(-self.batches // self.how.accumulate)

    @property
    def cycle(self) -> Cycle | None:
        """The cosines of the rate; None where it is constant."""
        return cycles(self.steps, self.how.cycles) if self.how.cycles else None

    def ends(self, step: int) -> bool:
        """The ends of the cycles, or what `every` says."""
        cycle = self.cycle
        return self.late(step) if cycle is None or self.how.every else cycle.ends(step)

    def late(self, step: int) -> bool:
        """Each `every` steps, or each epoch, once `begin` of the run is over."""
        often = self.how.every or self.steps // self.how.epochs
        return every(often, begin=int(self.how.begin * self.steps))(step)

    def samples(self, step: int) -> bool:
        """The same within each cycle."""
        cycle, often = self.cycle, self.how.every or self.steps // self.how.epochs
        return self.late(step) if cycle is None else cycle.samples(step, share=1 - self.how.begin, every=often)

    def run(
        self,
        module: nn.Module,
        *,
        number: int = 0,
        optimizer: torch.optim.Optimizer | None = None,
        collectors: Mapping[str, Collector] | None = None,
        before: Callable[[int], None] | None = None,
        loss: Callable[[Any, Rows], Tensor] | None = None,
    ) -> Run:
        """Run number `number` on a network, or on a population whose members each have an order of their own."""
        how, members = self.how, module.members if isinstance(module, Population) else 1
        module.to(self.device)
        learned = [param for param in module.parameters() if param.requires_grad]
        stepper = optimizer or OPTIMISERS[how.optimiser](learned, how.rate, how.weight_decay)
        with torch.random.fork_rng():
            torch.manual_seed(self.key.fold(f"run {number}").seed % 2**63)
            found = train(
                module, lambda epoch: self._epoch(epoch, number, members), loss or _loss, optimizer=stepper,
                epochs=how.epochs, scheduler=None if self.cycle is None else self.cycle.scheduler(stepper),
                collectors=collectors, before=before, accumulate=how.accumulate,
                autocast=torch.bfloat16 if how.autocast else None, save_every=max(1, self.steps // 100),
                checkpoint=None if self.file is None else self.file.with_name(f"{self.file.name}-{number}.pt"),
                progress=lambda done, _: self.progress(number + done / how.epochs),
            )  # fmt: skip
        module.eval().to(CPU)
        return found

    def _epoch(self, epoch: int, number: int, members: int) -> Iterator[Rows]:
        orders = [
            fresh_order("\0rows", len(self.rows), self.key.fold(f"order {number + member}"), group=epoch)
            for member in range(members)
        ]
        for start in range(0, self.batches * self.how.batch, self.how.batch):
            chosen = [self.rows.take(order[start : start + self.how.batch]) for order in orders]
            yield [(each.normalise(each.inputs).to(self.device), each.targets.to(self.device)) for each in chosen]

    def refreshed(self, model: nn.Module, ensemble: Ensemble) -> Ensemble:
        """With statistics of batch norm from the training rows, as they are after no run."""
        if not has_batch_norm(model):
            return ensemble
        rows = [inputs for inputs, y in self.rows.batches(max(2, self.how.batch)) if len(y) > 1]
        return refresh(model, ensemble, rows, plain=True, forward=call)


def points(loop: Loop, make: Make, model: nn.Module, **options: Any) -> Left:
    """The networks at the ends of cycles."""
    return _collected(loop, model, make(when=loop.ends, **options)), 1


def averaged(loop: Loop, make: Make, model: nn.Module, **options: Any) -> Left:
    """The mean of the late iterates, one member."""
    return loop.refreshed(model, _collected(loop, model, make(when=loop.late, **options))), 1


def drawn(
    loop: Loop, make: Make, model: nn.Module, *, members: int = 8, scale: float | None = None, **options: Any
) -> Left:
    """Draws around the late iterates."""
    found = _collected(loop, model, make(when=loop.late, **options), members=members, scale=scale, key=loop.key)
    return loop.refreshed(model, found), 1


def joined(loop: Loop, make: Make, model: nn.Module, *, members: int = 8, runs: int = 4, rank: int = 20) -> Left:
    """As many draws around the late iterates of each of several runs, from starts of their own."""
    each, collector, states = per_run(members, runs), SWAG(rank, loop.late), []
    for number in range(runs):
        start = restarted(model, loop.key.fold(f"start {number}"))
        states.append(loop.run(start, number=number, collectors={"members": collector}).states["members"])
        if not number:
            params = start.state_dict()
    model.load_state_dict(params)
    return loop.refreshed(model, make(collector, states, members=each, key=loop.key).to(CPU)), runs


def per_run(members: int, runs: int) -> int:
    """How many are drawn around each run. Raises ValueError where they cannot be as many for each."""
    if runs < 1 or members % runs:
        raise ValueError(f"multi_swag draws as many members around each run; {runs} runs do not divide {members}")
    return members // runs


def mixed(
    loop: Loop, make: Make, model: nn.Module, *, members: int = 5, corners: int = 2, penalty: float = 1.0
) -> Left:
    """Members along a line from corner to corner, or at shares drawn from a simplex; the network is the middle.

    `penalty` is on the squared cosine of two corners.
    """
    span: Span = make([restarted(model, loop.key.fold(f"start {number}")) for number in range(corners)])
    at, pairs = [0], list(itertools.combinations(range(corners), 2))

    def loss(span: Any, batch: Rows) -> Tensor:
        ((x, y),) = batch
        shares = simplex_shares(corners, at[0], key=loop.key).to(x.device)
        apart = torch.stack([cosine(span, *pair) for pair in pairs]).mean()
        return _mean(span(x, shares=shares), y) + penalty * apart

    loop.run(span, loss=loss, before=lambda step: at.__setitem__(0, step))
    drawn = loop.key.fold("members")
    if corners == 2:
        shares = along(torch.linspace(0, 1, members), 2)
    else:
        shares = torch.stack([simplex_shares(corners, member, key=drawn) for member in range(members)])
    middle = torch.full((1, corners), 1 / corners)
    loop.refreshed(model, span.ensemble(middle)).write(0, model.state_dict())
    return loop.refreshed(model, span.ensemble(shares)), 1


def fitted(loop: Loop, make: Make, model: nn.Module, *, members: int = 8, **options: Any) -> Left:
    """Draws of the Gaussian that an optimiser has learned."""
    optimizer = make(model.parameters(), loop.how.rate, **_of_optimiser(loop, options))
    loop.run(model, optimizer=optimizer)
    found = optimizer.ensemble(model, members=members, key=loop.key).to(CPU)
    return loop.refreshed(model, found), 1


def sampled(loop: Loop, make: Make, model: nn.Module, *, temperature: float = 1.0, **options: Any) -> Left:
    """Samples late in each cycle; before them there is no noise."""
    optimizer = make(model.parameters(), loop.how.rate, **_of_optimiser(loop, options))
    cycle, begin = loop.cycle, loop.how.begin

    def anneal(step: int) -> None:
        warm = step > begin * loop.steps if cycle is None else cycle.samples(step, share=1 - begin)
        optimizer.param_groups[0]["temperature"] = temperature if warm else 0.0

    collector = Snapshots(loop.samples)
    run = loop.run(model, optimizer=optimizer, collectors={"members": collector}, before=anneal)
    return collector.ensemble(run.states["members"]).to(CPU), 1


def several(loop: Loop, make: Make, model: nn.Module, *, members: int = 4, **options: Any) -> Left:
    """A run for each member; independent ones begin anew, each at a start of its own."""

    def fit(copy: nn.Module, number: int) -> nn.Module:
        loop.run(copy, number=number)
        return copy

    if "models" in inspect.signature(make).parameters:
        found = make((restarted(model, loop.key.fold(f"start {n}")) for n in range(members)), fit, **options)
    else:
        found = make(model, fit, members=members, **options)
    found.write(0, model.state_dict())
    return found, members


def expanded(loop: Loop, make: Make, model: nn.Module, *, members: int = 4, **options: Any) -> Left:
    """Members that share most of the network, each on batches of its own."""
    population = make(model, members=members, key=loop.key, **options)
    loop.run(population)
    found = population.ensemble()
    found.write(0, model.state_dict())
    return found, members


def _collected(loop: Loop, model: nn.Module, collector: Any, **options: Any) -> Ensemble:
    found: Ensemble = collector.ensemble(
        loop.run(model, collectors={"members": collector}).states["members"], **options
    )
    return found


def _of_optimiser(loop: Loop, options: dict[str, Any]) -> dict[str, Any]:
    decay = {"weight_decay": loop.how.weight_decay} if "weight_decay" in loop.how.model_fields_set else {}
    return {**options, **decay, "data_size": len(loop.rows), "key": loop.key}


def _loss(module: Any, batch: Rows) -> Tensor:
    """Of a network, or the sum over a population's members, each on its own batch."""
    if not isinstance(module, Population):
        ((x, y),) = batch
        return _mean(module(x), y)
    return torch.stack([_mean(module(x, member=k), y) for k, (x, y) in enumerate(batch)]).sum()


def _mean(outputs: Tensor, targets: Tensor) -> Tensor:
    # The built-in mean is NaN where a whole batch is ignored.
    counted = (targets != IGNORED).sum().clamp(min=1)
    return F.cross_entropy(outputs, targets, ignore_index=IGNORED, reduction="sum") / counted
