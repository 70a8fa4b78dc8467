"""The members that answer together, made ready once, and how their outputs become one answer.

outputs [K, n, C] ── pool, with all that follows it ──▶ log p [n, C]

A file may hold a cascade: then its rule says who is asked next, and its pool is the mean of those that were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.core.errors import DataError
from pluria.pool import Cascade, mean_probability
from pluria.predict import Batches, Part, Runner, runner

Pool = Callable[[Tensor, Tensor], Tensor]
"""(outputs `[k, n, C]`, weights `[k, n]`) -> log-probabilities `[n, C]`."""


@dataclass(frozen=True, eq=False)
class Pooling:
    """How members become one answer, and whether some of the members have an answer too.

    A pool that was fitted for all members has `running=False`: it gives no running answer and stops nothing early.
    `rule` says which examples each stage of members is asked for; None: all are.
    """

    pool: Pool = mean_probability
    running: bool = True
    rule: Cascade | None = None

    def __call__(self, outputs: Tensor, weights: Tensor) -> Tensor:
        """Log-probabilities `[n, C]` of outputs `[k, n, C]` with weights `[k, n]`."""
        return self.pool(outputs, weights)


@dataclass(frozen=True, eq=False)
class Panel:
    """Members that are ready to run: one working copy for each network, weights float64 `[K]`, names of the classes.

    `places` says of each member which run has it, and its number there.
    """

    runs: tuple[Runner, ...]
    places: tuple[tuple[int, int], ...]
    weights: Tensor
    classes: tuple[str, ...]
    pooling: Pooling = Pooling()

    @property
    def order(self) -> tuple[int, ...]:
        """The members 0..K-1 in the order in which they are asked."""
        rule = self.pooling.rule
        return tuple(range(len(self.weights))) if rule is None else sum(rule.stages, ())

    def members(self, batches: Batches) -> Iterator[Tensor]:
        """Outputs `[n, C]` of one member after the other, in that order, on what `batches` holds by then."""
        for run, number in (self.places[member] for member in self.order):
            for block in self.runs[run](batches, [number]):
                yield block.outputs[0]


def panel(
    parts: Sequence[Part],
    shape: Sequence[int],
    *,
    classes: Sequence[str] | None = None,
    pooling: Pooling | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Panel:
    """Members of one or several networks, run once on two examples of zeros `[2, *shape]`.

    Networks count equally, whatever the number of their members, as in `pluria predict`. Raises DataError where a
    network does not take inputs of that shape, where outputs are not `[N, C]` with one C for all, where there are not
    C names of classes, and where the pool gives no probabilities for them; CheckpointError where members do not fit
    their network.
    """
    runs = [
        runner(part.model, part.ensemble, class_axis=1, views=part.views, device=device, dtype=dtype) for part in parts
    ]
    weights = torch.cat([part.ensemble.weights for part in parts]) / len(parts)
    zeros = torch.zeros((2, *shape))
    counts = {_classes(run, zeros) for run in runs}
    if len(counts) > 1:
        raise DataError(f"the networks tell {' and '.join(map(str, sorted(counts)))} classes apart; wanted one number")
    names = tuple(map(str, range(*counts))) if classes is None else tuple(classes)
    if {len(names)} != counts:
        raise DataError(f"the network tells {counts.pop()} classes apart, and the file names {len(names)}")
    places = tuple((run, number) for run, part in enumerate(parts) for number in part.ensemble.members)
    made = Panel(tuple(runs), places, weights, names, pooling or Pooling())
    _check_rule(made)
    _check_answer(made, torch.stack(list(made.members([zeros]))))
    return made


def _check_rule(panel: Panel) -> None:
    """Raise DataError where the rule is for other members or classes."""
    rule, here = panel.pooling.rule, (len(panel.weights), len(panel.classes))
    if rule is not None and (rule.members, rule.classes) != here:
        wanted = f"{rule.members} members and {rule.classes} classes"
        raise DataError(f"the cascade of the file was fitted for {wanted}; here are {here[0]} and {here[1]}")


def _check_answer(panel: Panel, outputs: Tensor) -> None:
    """Raise DataError unless the pool gives a probability for each class."""
    rows, classes = outputs.shape[1:]
    try:
        pooled = panel.pooling(outputs, panel.weights[:, None].expand(-1, rows))
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(f"the pool does not take the outputs of {len(outputs)} members: {error}") from None
    total = pooled.double().exp().sum(-1) if isinstance(pooled, Tensor) and pooled.shape == (rows, classes) else None
    if total is None or not bool(torch.isclose(total, torch.ones_like(total), atol=1e-4).all()):
        raise DataError("the pool gives no probabilities of classes [N, C]; answers are made of those")


def _classes(run: Runner, inputs: Tensor) -> int:
    """How many classes a network tells apart; all members are run, so that nothing is left to the first request."""
    try:
        outputs = [block.outputs for block in run([inputs])][-1]
    except Exception as error:  # the network's own code, which may raise anything
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"the network does not take inputs of shape {list(inputs.shape)}: {line}. Say the shape of one example "
            "by --shape, such as 1x28x28"
        ) from None
    if outputs.ndim != 3 or len(inputs) != outputs.shape[1]:
        raise DataError(f"the network gives outputs of shape {list(outputs.shape[1:])}; wanted [N, C], a row each")
    return outputs.shape[2]
