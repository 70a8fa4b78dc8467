"""Can these models be merged? Names, shapes, distances, and with a network and data what merging them would give."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from pluria.check.advice import advice
from pluria.check.between import Between, Source, between
from pluria.check.fit import floating, notes, problems
from pluria.check.measured import Measured, measure
from pluria.core.params import Params
from pluria.predict.batches import Batches
from pluria.store.streamed import streamed

Given = str | os.PathLike[str] | Params


@dataclass(frozen=True)
class Check:
    """The whole answer. `problems` forbid a merge, `notes` do not; `between` is None where there are problems."""

    models: tuple[str, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    between: Between | None
    measured: Measured | None
    advice: str


def check(
    models: Sequence[Given],
    *,
    base: Given | None = None,
    network: nn.Module | None = None,
    batches: Batches | None = None,
    heads: Sequence[str] = (),
    steps: int = 5,
) -> Check:
    """Whether models can be merged, what lies between them, and what merging them would give.

    models    two or more: checkpoints that `streamed` reads, from their headers and then in pieces, or named tensors
    base      the model they were fine-tuned from, for task vectors
    network   the network they belong to; with `batches` (inputs and targets) it is run, and the models are in memory
    heads     patterns of names of tensors that each model keeps in the table's shared trunk
    steps     on the lines between models

    Raises ValueError for fewer than two models, or a network without batches; CheckpointError for files that cannot be
    read and for NaN and Inf.
    """
    if len(models) < 2:
        raise ValueError(f"two models or more can be compared; got {len(models)}")
    if (network is None) != (batches is None):
        raise ValueError("to measure, give both the network and batches of inputs and targets")
    with _opened([*models, *([] if base is None else [base])]) as sources:
        several, origin = sources[: len(models)], sources[len(models)] if base is not None else None
        labels, wrong = tuple(source.label for source in several), tuple(problems(several, origin))
        if wrong:
            return Check(labels, wrong, (), None, None, advice(wrong, None, None))
        apart = between(several, origin, floating(several[0].outline))
        said = tuple(notes(several))
        measured = None
        if network is not None and batches is not None:
            measured = measure(network, [_whole(source) for source in several], batches, heads=heads, steps=steps)
    return Check(labels, (), said, apart, measured, advice((), apart, measured))


@dataclass(frozen=True)
class _Held:
    """Tensors in memory, as a source."""

    label: str
    outline: Params

    def read(self, name: str, start: int, out: Tensor) -> None:
        out.copy_(self.outline[name].detach().reshape(-1)[start : start + len(out)])


@contextlib.contextmanager
def _opened(given: Sequence[Given]) -> Iterator[list[Source]]:
    paths = [one for one in given if isinstance(one, str | os.PathLike)]
    with streamed([Path(path) for path in paths]) as files:
        left = iter(files)
        yield [
            next(left) if isinstance(one, str | os.PathLike) else _Held(f"model {number}", one)
            for number, one in enumerate(given)
        ]


def _whole(source: Source) -> dict[str, Tensor]:
    found = {}
    for name, value in source.outline.items():
        out = torch.empty(value.numel(), dtype=value.dtype)
        source.read(name, 0, out)
        found[name] = out.view(value.shape)
    return found
