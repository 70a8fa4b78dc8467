"""Two processes that share out each batch learn, collect and resume what one process does."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluria.train import IVON, SGHMC, SWAG, Collector, Snapshots, every, train

OPTIMISERS = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), 0.1, momentum=0.9),
    "ivon": lambda model: IVON(model.parameters(), 1.0, data_size=32),
    "sghmc": lambda model: SGHMC(model.parameters(), 0.05, data_size=32),
}


def collectors() -> dict[str, Collector]:
    return {"swag": SWAG(rank=2), "points": Snapshots(every(3))}


def net(dropout: float = 0.0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3))


def epoch(number: int, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(number)
    for _ in range(4):
        x = torch.randn(8, 4, generator=generator)
        yield x[rank::world], ((x[:, 0] > 0).long() + (x[:, 1] > 0).long())[rank::world]


def learned(optimiser: str, rank: int = 0, world: int = 1, *, dropout: float = 0.0, **options: Any) -> dict[str, Any]:
    """Two epochs, two batches a step; the network and what was collected."""
    model = net(dropout)
    wrapped = nn.parallel.DistributedDataParallel(model) if world > 1 else model
    torch.manual_seed(5 + rank)
    run = train(
        wrapped,
        lambda number: epoch(number, rank, world),
        lambda network, batch: F.cross_entropy(network(batch[0]), batch[1]),
        optimizer=OPTIMISERS[optimiser](wrapped),
        epochs=2,
        accumulate=2,
        collectors=collectors(),
        **options,
    )
    tensors = {f"{name}/{n}": value for name, state in run.states.items() for n, value in state.tensors.items()}
    return {**model.state_dict(), **tensors}


def stopped(step: int) -> None:
    if step == 4:
        raise KeyboardInterrupt


def refused(optimiser: str, rank: int) -> str:
    """What a process says when the loss of the second one alone is NaN, at finite gradients."""
    model = net()
    wrapped = nn.parallel.DistributedDataParallel(model)

    def loss(network: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(network(batch[0]), batch[1]) + (torch.nan if rank else 0.0)

    batches: Any = partial(epoch, rank=rank, world=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="step 1") as error:
        train(wrapped, batches, loss, optimizer=OPTIMISERS[optimiser](wrapped), epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return str(error.value)


def process(rank: int, folder: Path) -> None:
    """What each of the two does: every optimiser, and a run that is interrupted and resumed."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    said = [refused(name, rank) for name in OPTIMISERS]
    assert all(("the loss is nan" if rank else "the norm of the gradient is nan") in each for each in said), said
    found = {name: learned(name, rank, 2) for name in OPTIMISERS}
    found["whole"] = learned("sgd", rank, 2, dropout=0.5)
    file = folder / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        learned("sgd", rank, 2, dropout=0.5, checkpoint=file, save_every=1, before=stopped)
    torch.manual_seed(99)
    found["resumed"] = learned("sgd", rank, 2, dropout=0.5, checkpoint=file, save_every=1)
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def close(one: dict[str, Tensor], other: dict[str, Tensor], tolerance: float = 0.0) -> bool:
    return one.keys() == other.keys() and all(torch.allclose(one[n], other[n], rtol=0, atol=tolerance) for n in one)


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    code = "import pathlib, sys; from train.test_parallel import process\nprocess({}, pathlib.Path(sys.argv[1]))"
    how: Any = {"cwd": Path(__file__).parents[1], "env": {**os.environ, "OMP_NUM_THREADS": "1"}}
    both = [subprocess.Popen([sys.executable, "-c", code.format(rank), str(tmp_path)], **how) for rank in (0, 1)]
    assert [one.wait(timeout=240) for one in both] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name in (*OPTIMISERS, "whole"):
        assert close(first[name], second[name]), name
    for name in OPTIMISERS:
        assert close(first[name], learned(name), 1e-5), name
    assert close(first["resumed"], first["whole"])
    assert not close(first["whole"], first["sgd"], 1e-5)
