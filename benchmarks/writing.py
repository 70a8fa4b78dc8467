"""What writing a member takes of its forward: ResNet-20 on 256 images, the encoder on 512 tokens.

    python -m benchmarks.writing [--turns 8] [--clock cpu]

Two members take turns in one working copy. Each runs twice on an eighth of the batch, so that the first run writes and
the second does not: the difference is what writing takes, without the noise of a long forward. Then it runs on the
whole batch. Ratios are taken turn by turn; for the fast back ends also over the forward of the float32 loop. Of a large
embedding the fast back ends draw the rows that a batch asks for, in its forward.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from torch import Tensor

from benchmarks.networks import Case, case
from benchmarks.sides import CLOCKS, Ratio, keep, ratio
from pluria.predict import logits
from pluria.predict.backends import Name, Storage, backend
from pluria.sample import low_precision

CASES: tuple[tuple[str, int, tuple[Name, ...]], ...] = (
    ("resnet20", 256, ("loop", "channels_last", "bfloat16")),
    ("bert", 4, ("loop", "bfloat16", "int8")),
    ("long", 1, ("loop", "bfloat16", "int8")),
)
BAR = 0.05
"""What writing may take of a forward in float32."""


def measure(found: Case, ways: tuple[Name, ...], turns: int, clock: str) -> list[Ratio]:
    """Ratios of each way; all take turns, and the first turn is not counted."""
    made, x, now = low_precision(found.model, format="int4", members=2), found.batches[0], CLOCKS[clock]
    part = eighth(x)
    runs = {name: backend(name, found.model, made, Storage(torch.device("cpu"), None)) for name in ways}
    written: dict[str, list[float]] = {name: [] for name in ways}
    forward: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(turns + 1):
        for name, run in runs.items():
            seconds = []
            for inputs in (part, part, x):
                start = now()
                with torch.inference_mode():
                    run([made.members[turn % 2]], [inputs], logits)
                seconds.append(now() - start)
            if turn:
                written[name].append(seconds[0] - seconds[1])
                forward[name].append(seconds[2])
    return [one for name in ways for one in _ratios(found.what, name, written, forward)]


def eighth(x: Tensor) -> Tensor:
    """Of images an eighth of the batch, of words an eighth of every sequence."""
    return x[: max(1, len(x) // 8)] if x.is_floating_point() else x[:, : max(1, x.shape[1] // 8)]


def _ratios(what: str, name: str, written: dict[str, list[float]], forward: dict[str, list[float]]) -> list[Ratio]:
    what = f"{what}: writing a member by {name}"
    base = "loop"
    found = [ratio(f"{what} / a forward in float32", written[name], forward[base], bar=BAR)]
    if name != base:
        found.append(ratio(f"{what} / a forward by {name}", written[name], forward[name]))
    return found


def main(
    rounds: Annotated[int, typer.Option("--turns", help="Turns of every way.")] = 8,
    clock: Annotated[str, typer.Option(help="wall, or cpu: of one thread, on a machine that others use too.")] = "wall",
) -> None:
    """Measure what writing members takes."""
    ratios = []
    for name, rows, ways in CASES:
        ratios += measure(case(name, rows), ways, rounds, clock)
    keep("writing", ratios, clock=clock)


if __name__ == "__main__":
    typer.run(main)
