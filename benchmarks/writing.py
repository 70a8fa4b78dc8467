"""What writing a member takes of its forward: ResNet-20 on 256 images, the encoder on 512 tokens.

    python -m benchmarks.writing [--turns 8] [--clock cpu]

Stratified members share their random words: the first of sixteen draws and notes them, the others are written from the
notes. Each turn writes such a first member and the one behind it, in one working copy, and the mean of eight is made of
both. Independent members are drawn one by one, and each of them is like the other.

Each member runs twice on an eighth of the batch, so that the first run writes and the second does not: the difference
is what writing takes, without the noise of a long forward. Then the last one runs on the whole batch. Ratios are taken
turn by turn; for the fast back ends also over the forward of the float32 loop. Of a large embedding the fast back ends
draw the rows that a batch asks for, in its forward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
import typer
from torch import Tensor

from benchmarks.networks import Case, case
from benchmarks.sides import CLOCKS, Ratio, keep, ratio
from pluria.numbers.coupling import Coupling
from pluria.numbers.strata import MEMBERS
from pluria.predict import logits
from pluria.predict.backends import Name, Storage, backend
from pluria.sample import low_precision

CASES: tuple[tuple[str, int, tuple[Name, ...]], ...] = (
    ("resnet20", 256, ("loop", "channels_last", "bfloat16")),
    ("bert", 4, ("loop", "bfloat16", "int8")),
    ("long", 1, ("loop", "bfloat16", "int8")),
)
COUPLED: tuple[Coupling, ...] = ("stratified", "independent")
BAR = 0.05
"""What writing may take of a forward in float32."""


@dataclass
class Seconds:
    """What the first of sixteen, the member behind it and a forward took, turn by turn."""

    first: list[float] = field(default_factory=list)
    behind: list[float] = field(default_factory=list)
    forward: list[float] = field(default_factory=list)

    @property
    def member(self) -> list[float]:
        """The mean of eight."""
        return [(one + 7 * other) / 8 for one, other in zip(self.first, self.behind, strict=True)]


def measure(found: Case, ways: tuple[Name, ...], coupling: Coupling, turns: int, clock: str) -> list[Ratio]:
    """Ratios of each way; all take turns, and the first turn is not counted."""
    made = low_precision(found.model, format="int4", members=2 * MEMBERS, coupling=coupling)
    x, now = found.batches[0], CLOCKS[clock]
    part = eighth(x)
    runs = {name: backend(name, found.model, made, Storage(torch.device("cpu"), None)) for name in ways}
    kept = {name: Seconds() for name in ways}
    for turn in range(turns + 1):
        head = MEMBERS * (turn % 2)
        for name, run in runs.items():
            seconds = []
            for member, inputs in ((head, part), (head, part), (head + 1, part), (head + 1, part), (head + 1, x)):
                start = now()
                with torch.inference_mode():
                    run([member], [inputs], logits)
                seconds.append(now() - start)
            if turn:
                kept[name].first.append(seconds[0] - seconds[1])
                kept[name].behind.append(seconds[2] - seconds[3])
                kept[name].forward.append(seconds[4])
    ratios = [one for name in ways for one in _ratios(f"{found.what}, {coupling}", name, kept)]
    if coupling == "stratified":
        for name in ways:
            what = f"{found.what}: writing the first of sixteen by {name} / a forward in float32"
            ratios.append(ratio(what, kept[name].first, kept["loop"].forward))
    return ratios


def eighth(x: Tensor) -> Tensor:
    """Of images an eighth of the batch, of words an eighth of every sequence."""
    return x[: max(1, len(x) // 8)] if x.is_floating_point() else x[:, : max(1, x.shape[1] // 8)]


def _ratios(what: str, name: Name, kept: dict[Name, Seconds]) -> list[Ratio]:
    what = f"{what}: writing a member by {name}, the mean of eight"
    own, plain = kept[name], kept["loop"]
    found = [ratio(f"{what} / a forward in float32", own.member, plain.forward, bar=BAR)]
    if name != "loop":
        found.append(ratio(f"{what} / a forward by {name}", own.member, own.forward))
    return found


def main(
    rounds: Annotated[int, typer.Option("--turns", help="Turns of every way.")] = 8,
    clock: Annotated[str, typer.Option(help="wall, or cpu: of one thread, on a machine that others use too.")] = "wall",
) -> None:
    """Measure what writing members takes."""
    ratios = []
    for name, rows, ways in CASES:
        for coupling in COUPLED:
            ratios += measure(case(name, rows), ways, coupling, rounds, clock)
    keep("writing", ratios, clock=clock)


if __name__ == "__main__":
    typer.run(main)
