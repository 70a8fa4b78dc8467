"""The loop: a killed run goes on bit for bit, NaN stops it before it harms, accumulation is a larger batch."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluria.train import IVON, SGHMC, SWAG, Collector, Cycle, Run, Snapshots, train

LENGTH = 5


def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))


def epoch(number: int) -> Iterator[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(100 + number)
    for _ in range(LENGTH):
        x = torch.randn(8, 4, generator=generator)
        yield x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1])


OPTIMISERS = {
    "sgd": lambda model: torch.optim.SGD(model.parameters(), 0.1, momentum=0.9),
    "ivon": lambda model: IVON(model.parameters(), 0.1, data_size=40),
    "sghmc": lambda model: SGHMC(model.parameters(), 0.05, data_size=40),
}
COLLECTORS: Mapping[str, Collector] = {"swag": SWAG(rank=2), "snapshots": Snapshots(Cycle(4).ends)}


def trained(optimiser: str, epochs: int = 3, **options: Any) -> tuple[nn.Module, Run]:
    model = net()
    optimizer = OPTIMISERS[optimiser](model)
    scheduler = Cycle(4).scheduler(optimizer)
    torch.manual_seed(5)
    run = train(
        model, options.pop("epoch", epoch), loss, optimizer=optimizer, epochs=epochs, scheduler=scheduler,
        collectors=COLLECTORS, **options,
    )  # fmt: skip
    return model, run


def same(one: tuple[nn.Module, Run], other: tuple[nn.Module, Run]) -> bool:
    pairs = [(one[0].state_dict(), other[0].state_dict())]
    pairs += [(dict(one[1].states[n].tensors), dict(other[1].states[n].tensors)) for n in COLLECTORS]
    return one[1].losses == other[1].losses and all(torch.equal(a[n], b[n]) for a, b in pairs for n in a)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
@pytest.mark.parametrize("stop", [3, 5, 9])
def test_an_interrupted_run_goes_on_bit_for_bit(optimiser: str, stop: int, tmp_path: Path) -> None:
    def interrupted(step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    file = tmp_path / "run.pt"
    with pytest.raises(KeyboardInterrupt):
        trained(optimiser, checkpoint=file, save_every=2, before=interrupted)
    torch.manual_seed(99)
    assert same(trained(optimiser, checkpoint=file, save_every=2), trained(optimiser))
    assert [path.name for path in tmp_path.iterdir()] == ["run.pt"]


def test_a_killed_process_goes_on_bit_for_bit(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from train.test_loop import trained\n"
        "def kill(step):\n    if step == 8: os.kill(os.getpid(), signal.SIGKILL)\n"
        "trained('sgd', checkpoint=sys.argv[1], save_every=3, before=kill)\n"
    )
    file, root = tmp_path / "run.pt", Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code, str(file)], cwd=root, check=False)
    assert done.returncode == -signal.SIGKILL
    assert same(trained("sgd", checkpoint=file), trained("sgd"))


def test_a_finished_run_is_not_taken_again(tmp_path: Path) -> None:
    first = trained("sgd", checkpoint=tmp_path / "run.pt")

    def none(step: int) -> None:
        raise AssertionError(step)

    assert same(trained("sgd", checkpoint=tmp_path / "run.pt", before=none), first)


def test_a_checkpoint_of_another_run_and_a_damaged_one(tmp_path: Path) -> None:
    file = tmp_path / "run.pt"
    trained("sgd", epochs=1, checkpoint=file)
    with pytest.raises(ValueError, match=r"run.pt: this checkpoint is of another run.*has the collectors"):
        train(net(), epoch, loss, optimizer=torch.optim.SGD(net().parameters(), 0.1), epochs=1, checkpoint=file)
    other, model = nn.Linear(4, 3), net()
    plain = torch.optim.SGD(other.parameters(), 0.1)
    with pytest.raises(ValueError, match=r"(?s)of another run.*Missing key"):
        train(other, epoch, loss, optimizer=plain, epochs=1, checkpoint=file, collectors=COLLECTORS)
    grouped = torch.optim.SGD([{"params": model[0].parameters()}, {"params": model[4].parameters()}], 0.1)
    with pytest.raises(ValueError, match=r"of another run.*parameter groups"):
        train(model, epoch, loss, optimizer=grouped, epochs=1, checkpoint=file, collectors=COLLECTORS)
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match="or damaged"):
        trained("sgd", checkpoint=file)


def test_nan_stops_the_run_and_leaves_the_step_before(tmp_path: Path) -> None:
    def poisoned(number: int) -> Iterator[tuple[Tensor, Tensor]]:
        for place, (x, y) in enumerate(epoch(number)):
            yield (x * float("nan") if (number, place) == (1, 2) else x), y

    file = tmp_path / "run.pt"
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ValueError, match="step 8: the loss is nan"):
        train(model, poisoned, loss, optimizer=optimizer, epochs=3, checkpoint=file, save_every=1)
    held = torch.load(file, weights_only=True)
    assert held["progress"]["step"] == 7
    # Statistics of batch norm too, which the forward that met NaN had moved already.
    assert all(torch.equal(value, held["model"][name]) for name, value in model.state_dict().items())


def test_a_gradient_that_is_not_finite_stops_the_run_as_well() -> None:
    model = nn.Linear(1, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def root(model: nn.Module, batch: Tensor) -> Tensor:
        return (model(batch) - model(batch)).abs().sqrt().sum()  # 0, with a slope of 0 / 0

    with pytest.raises(ValueError, match="step 1: the norm of the gradient is nan"):
        train(model, lambda _: [torch.ones(1, 1)], root, optimizer=torch.optim.SGD(model.parameters(), 1.0), epochs=1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_accumulated_batches_are_one_large_batch(optimiser: str, autocast: torch.dtype | None) -> None:
    def large(number: int) -> Iterator[tuple[Tensor, Tensor]]:
        batches = list(epoch(number))[:4]
        for first in (0, 2):
            x, y = zip(*batches[first : first + 2], strict=True)
            yield torch.cat(x), torch.cat(y)

    def small(number: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from list(epoch(number))[:4]

    ends = []
    for batches, accumulate in ((large, 1), (small, 2)):
        model = nn.Linear(4, 3)
        nn.init.ones_(model.weight)
        nn.init.zeros_(model.bias)
        how: Any = {"accumulate": accumulate, "autocast": autocast, "clip": 10.0}
        run = train(model, batches, loss, optimizer=OPTIMISERS[optimiser](model), epochs=2, **how)
        ends.append((model.weight.detach(), run.losses))
    # In bfloat16 the gradient of each half is rounded by itself.
    tolerance = 1e-6 if autocast is None else 2e-3
    assert torch.allclose(ends[0][0], ends[1][0], atol=tolerance)
    assert ends[0][1] == pytest.approx(ends[1][1], rel=tolerance)
    assert not torch.allclose(ends[0][0], torch.ones(3, 4), atol=10 * tolerance)


def test_autocast_clip_and_progress() -> None:
    told: list[tuple[int, float]] = []
    model, run = trained("sgd", epochs=2, autocast=torch.bfloat16, clip=1e-9, progress=lambda *a: told.append(a))
    assert [number for number, _ in told] == [1, 2]
    assert [value for _, value in told] == list(run.losses)
    before = net().state_dict()
    assert all(torch.allclose(value, before[name], atol=1e-6) for name, value in model.named_parameters())


def test_data_parallel_training_collects_the_networks_own_names(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model = net()
        wrapped = nn.parallel.DistributedDataParallel(model)
        for optimiser in OPTIMISERS:
            optimizer = OPTIMISERS[optimiser](wrapped)
            run = train(wrapped, epoch, loss, optimizer=optimizer, epochs=1, collectors=COLLECTORS)
            assert set(COLLECTORS["snapshots"].ensemble(run.states["snapshots"]).families) == set(model.state_dict())
        assert len(optimizer.param_groups[0]["params"]) == 6
        assert len(IVON(wrapped.parameters(), 0.1, data_size=9).ensemble(wrapped)) == 8
    finally:
        torch.distributed.destroy_process_group()


def test_no_batches_and_bad_numbers() -> None:
    optimizer = torch.optim.SGD(net().parameters(), 0.1)
    with pytest.raises(ValueError, match="epoch 0 has no batches"):
        train(net(), lambda number: [], loss, optimizer=optimizer, epochs=1)
    with pytest.raises(ValueError, match="1 or more; got 0 and 1"):
        train(net(), epoch, loss, optimizer=optimizer, epochs=0)
