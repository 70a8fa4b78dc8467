"""A tiny deterministic training loop: mean cross-entropy, shuffled batches, a cosine from the first rate to zero.

    rate_t = rate / 2 * (1 + cos(pi * t / steps))

`fit` is this loop for a data set with classes, `descend` for any loss of numbered examples. It exists to have a network
to try things on within seconds; for more, train with a training library.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pluria.zoo.dataset import IGNORED, Dataset
from pluria.zoo.lookup import choose

Model = TypeVar("Model", bound=nn.Module)
Progress = Callable[[int, float], None]
Loss = Callable[[nn.Module, Tensor], Tensor]
"""(network, numbers of examples `[n]`) -> their mean loss, one number with a gradient."""


def fit(
    model: Model,
    dataset: Dataset,
    *,
    epochs: int,
    batch: int,
    rate: float,
    seed: int,
    optimiser: str = "adam",
    weight_decay: float = 0.0,
    progress: Progress | None = None,
) -> Model:
    """A trained copy of the model, in evaluation mode; model and global random generators stay as they were.

    `optimiser` is "adam" (decoupled weight decay) or "sgd" (momentum 0.9). The order of the examples and dropout follow
    `seed`, so the same call gives the same bits on the same machine and number of threads. Each epoch leaves out the
    examples that do not fill a last batch (batch norm cannot take a batch of one), other ones every time. `progress`
    is told the number of epochs done and the epoch's mean loss. Targets of -100 are ignored.
    """
    device = _device(model)

    def loss(network: nn.Module, rows: Tensor) -> Tensor:
        inputs, targets = dataset.normalise(dataset.inputs[rows]), dataset.targets[rows]
        return _loss(network(inputs.to(device)), targets.to(device))

    return descend(
        model, loss, examples=len(dataset), epochs=epochs, batch=batch, rate=rate, seed=seed, optimiser=optimiser,
        weight_decay=weight_decay, progress=progress,
    )  # fmt: skip


def descend(
    model: Model,
    loss: Loss,
    *,
    examples: int,
    epochs: int,
    batch: int,
    rate: float,
    seed: int,
    optimiser: str = "adam",
    weight_decay: float = 0.0,
    progress: Progress | None = None,
) -> Model:
    """`fit` for any loss: `loss(network, rows)` is the mean loss of the examples numbered `rows`, of 0..examples-1.

    The other arguments, and what is promised, are those of `fit`.
    """
    if epochs < 1 or batch < 1 or not rate > 0:
        raise ValueError(f"epochs and batch of at least 1 and a positive rate, not {epochs}, {batch} and {rate}")
    trained = copy.deepcopy(model).train()
    stepper = choose(_OPTIMISERS, optimiser, what="optimiser")(trained, rate, weight_decay)
    size = min(batch, examples)
    steps = examples // size
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(stepper, T_max=epochs * steps)
    order = torch.Generator().manual_seed(seed)
    with _seeded(seed, _device(trained)):
        for epoch in range(1, epochs + 1):
            rows = torch.randperm(examples, generator=order)[: steps * size].reshape(steps, size)
            mean = _epoch(trained, loss, rows, stepper, schedule)
            if progress is not None:
                progress(epoch, mean)
    return trained.eval()


def _epoch(
    model: nn.Module,
    loss: Loss,
    rows: Tensor,
    stepper: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
) -> float:
    """One step for each row of `rows [steps, batch]`; the mean of their losses."""
    total = 0.0
    for part in rows:
        value = loss(model, part)
        stepper.zero_grad()
        torch.autograd.backward(value)
        stepper.step()
        schedule.step()
        total += value.item()
    return total / len(rows)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _loss(logits: Tensor, targets: Tensor) -> Tensor:
    # The built-in mean is NaN where a whole batch is ignored, and one NaN step ruins every parameter.
    counted = (targets != IGNORED).sum().clamp(min=1)
    return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum") / counted


def _adam(model: nn.Module, rate: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=weight_decay)


def _sgd(model: nn.Module, rate: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9, weight_decay=weight_decay)


_OPTIMISERS = {"adam": _adam, "sgd": _sgd}


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed what dropout draws from on this device, and give the global generators back as they were."""
    cuda = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
