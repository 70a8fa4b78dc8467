"""The training runs of the experiment: what each leaves is a `.pluria` file, and a run that was killed goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

import pluria
from pluria.core.ensemble import Ensemble, single
from pluria.core.params import params_of
from pluria.train import IVON, SGHMC, SWA, SWAG, Collector, Cycle, Snapshots, every, train
from pluria.zoo import Dataset, network

BATCH, RATE, MOMENTUM, DECAY = 100, 0.1, 0.9, 5e-4
WARM = 100
"""Steps over which the rate of a fresh network rises: without them the thresholds of FRN take an epoch to recover."""
Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Setting:
    """One seed of the experiment: its rows, its length and its network."""

    data: Dataset
    seed: int
    epochs: int
    norm: str
    folder: Path

    @property
    def steps(self) -> int:
        """Optimiser steps of an epoch."""
        return len(self.data) // BATCH

    @property
    def layout(self) -> torch.memory_format:
        """The faster one: sums over H and W like them contiguous."""
        return torch.contiguous_format if self.norm == "frn" else torch.channels_last

    def model(self) -> nn.Module:
        """A fresh ResNet-20."""
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            activation = "tlu" if self.norm == "frn" else "relu"
            return network("cifar_resnet", depth=20, classes=10, norm=self.norm, activation=activation)

    def epoch(self, number: int) -> list[Batch]:
        """Shuffled rows, each moved by up to four pixels and flipped at random: a pure function of seed and number."""
        generator = torch.Generator().manual_seed(100_000 * self.seed + number)
        order = torch.randperm(len(self.data), generator=generator)[: self.steps * BATCH]
        batches = []
        for rows in order.split(BATCH):
            x = self.data.normalise(self.data.inputs[rows])
            down, right = torch.randint(0, 9, (2,), generator=generator).tolist()
            x = F.pad(x, (4, 4, 4, 4))[:, :, down : down + x.shape[2], right : right + x.shape[3]]
            flips = torch.rand(len(rows), 1, 1, 1, generator=generator) < 0.5
            batches.append(
                (torch.where(flips, x.flip(-1), x).contiguous(memory_format=self.layout), self.data.targets[rows])
            )
        return batches


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Mean cross-entropy."""
    return F.cross_entropy(model(batch[0]), batch[1])


def follow(
    setting: Setting,
    name: str,
    *,
    epochs: int,
    first: int = 0,
    start: Ensemble | None = None,
    cycle: Cycle,
    make: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
    collectors: Mapping[str, Collector],
    before: Callable[[torch.optim.Optimizer, int], None] | None = None,
    end: Callable[[torch.optim.Optimizer, nn.Module], dict[str, Ensemble]] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Ensemble]:
    """One run, and what its collectors found, from the file where it is there already."""
    file = setting.folder / f"{name}.pluria"
    if file.exists():
        return dict(pluria.load_all(file).ensembles)
    model = setting.model()
    if start is not None:
        model.load_state_dict(start.params(start.members[-1]))
    model = model.to(memory_format=setting.layout)  # type: ignore[call-overload]
    stepper = make(model) if make else torch.optim.SGD(model.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY)
    warm = WARM if start is None else 1
    schedule = LambdaLR(stepper, lambda taken: cycle.share(taken) * min(1.0, (taken + 1) / warm))
    print(f"seed {setting.seed}, {name}: {epochs} epochs", flush=True)
    run = train(
        model, lambda number: setting.epoch(first + number), loss, optimizer=stepper, epochs=epochs, scheduler=schedule,
        collectors=collectors, autocast=torch.bfloat16, checkpoint=setting.folder / f"{name}.pt",
        before=None if before is None else lambda step: before(stepper, step),
        progress=lambda number, value: print(f"  {number}: {value:.4f}", flush=True),
    )  # fmt: skip
    given = options or {}
    found = {key: each.ensemble(run.states[key], **given.get(key, {})) for key, each in collectors.items()}
    found |= end(stepper, model) if end else {}
    pluria.save(file, found)
    (setting.folder / f"{name}.pt").unlink()
    return found


def base(setting: Setting) -> dict[str, Ensemble]:
    """One cosine; kept at the end, and at three quarters and four fifths for others to start from."""
    total = setting.epochs * setting.steps
    marks = {"end": setting.epochs, "late": 3 * setting.epochs // 4, "later": 4 * setting.epochs // 5}
    points = {name: Snapshots(lambda step, at=at: step == at * setting.steps) for name, at in marks.items()}
    return follow(setting, "base", epochs=setting.epochs, cycle=Cycle(total), collectors=points)


def snapshots(setting: Setting, members: int = 5) -> dict[str, Ensemble]:
    """Cosine cycles, a snapshot at the end of each."""
    cycle = Cycle(setting.epochs * setting.steps // members)
    return follow(setting, "sse", epochs=setting.epochs, cycle=cycle, collectors={"sse": Snapshots(cycle.ends)})


def geometric(setting: Setting) -> dict[str, Ensemble]:
    """From four fifths of the base on, triangles of two epochs."""
    cycle = Cycle(2 * setting.steps, shape="triangle", low=0.01)
    first = 4 * setting.epochs // 5
    return follow(
        setting, "fge", epochs=setting.epochs - first, first=first, start=base(setting)["later"], cycle=cycle,
        make=lambda m: torch.optim.SGD(m.parameters(), 0.05, momentum=MOMENTUM, weight_decay=DECAY),
        collectors={"fge": Snapshots(cycle.ends)},
    )  # fmt: skip


def averaged(setting: Setting) -> dict[str, Ensemble]:
    """From three quarters of the base on, a constant rate: SWA and SWAG see the same iterates."""
    first, often = 3 * setting.epochs // 4, every(max(1, setting.steps // 4))
    return follow(
        setting, "swag", epochs=setting.epochs - first, first=first, start=base(setting)["late"], cycle=Cycle(10**9),
        make=lambda m: torch.optim.SGD(m.parameters(), 0.05, momentum=MOMENTUM, weight_decay=DECAY),
        collectors={"swa": SWA(often), "swag": SWAG(20, often)}, options={"swag": {"members": 16, "key": setting.seed}},
    )  # fmt: skip


def cyclical(setting: Setting, members: int = 5) -> dict[str, Ensemble]:
    """Cosine cycles of SGHMC at temperature 1, noise in the last quarter of each, two samples from each."""
    cycle = Cycle(setting.epochs * setting.steps // members)

    def anneal(stepper: torch.optim.Optimizer, step: int) -> None:
        stepper.param_groups[0]["temperature"] = 1.0 if cycle.samples(step, share=0.25) else 0.0

    chosen = Snapshots(lambda step: cycle.samples(step, share=0.25, every=max(1, cycle.steps // 8)))
    return follow(
        setting, "csghmc", epochs=setting.epochs, cycle=cycle, collectors={"csghmc": chosen}, before=anneal,
        make=lambda m: SGHMC(
            m.parameters(), RATE, data_size=len(setting.data), friction=0.1, weight_decay=DECAY, key=setting.seed
        ),
    )  # fmt: skip


def variational(setting: Setting) -> dict[str, Ensemble]:
    """IVON at its published settings for images, but a rate of 1 for 0.2, the length of a step of SGD with momentum.

    Published runs are sixty times as long; there the curvature learns to take longer steps.
    """
    size = len(setting.data)

    def end(stepper: torch.optim.Optimizer, model: nn.Module) -> dict[str, Ensemble]:
        assert isinstance(stepper, IVON)
        mean = single(params_of(model))
        return {"ivon": stepper.ensemble(model, members=16, key=setting.seed), "ivon_mean": mean}

    return follow(
        setting, "ivon", epochs=setting.epochs, cycle=Cycle(setting.epochs * setting.steps), collectors={}, end=end,
        make=lambda m: IVON(m.parameters(), 1.0, data_size=size, hess_init=0.5, weight_decay=DECAY, key=setting.seed),
    )  # fmt: skip


RUNS = {"base": base, "sse": snapshots, "fge": geometric, "swag": averaged, "csghmc": cyclical, "ivon": variational}
