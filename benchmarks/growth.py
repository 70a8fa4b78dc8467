"""How cost grows with the number of members, up to 1,000, and with the number of parameters, up to a thousand million.

    python -m benchmarks.growth [--parameters 1e6 --parameters 1e7 ...] [--members 1 --members 10 ...]

Members: seconds for each member of a small convolutional network, over those of one alone. Parameters: writing the
codes of one member of a linear layer into bfloat16, against copying its float32 weights into bfloat16, in turns.
"""

from __future__ import annotations

import time
from typing import Annotated

import torch
import typer
from torch import Tensor

from benchmarks.networks import case
from benchmarks.sides import Ratio, keep, ratio, turns
from pluria.core.family import Shared
from pluria.core.rounded import Rounded
from pluria.numbers.format import number_format
from pluria.numbers.grid import layout
from pluria.numbers.key import Key
from pluria.predict import predict
from pluria.sample import low_precision

WIDTH = 10_000


def writing(parameters: int, repeats: int) -> tuple[Ratio, float]:
    """One member's codes against a copy; and G weights per second of the best turn."""
    weight = torch.empty(max(1, parameters // WIDTH), WIDTH)
    for row in weight.split(1000):
        row.normal_()
    family = _family(weight)
    out = torch.empty(weight.shape, dtype=torch.bfloat16)
    seconds = turns({"write": lambda: family.write_codes(3, out), "copy": lambda: out.copy_(weight)}, repeats)
    what = f"{weight.numel():,} parameters: writing a member / copying its weights"
    return ratio(what, seconds["write"], seconds["copy"]), weight.numel() / min(seconds["write"]) / 1e9


def _family(weight: Tensor) -> Rounded:
    return Rounded(
        Shared(weight), "weight", number_format("int4"), "channel", layout(weight.shape), Key(0), "stratified"
    )


def members_cost(counts: list[int], repeats: int) -> list[Ratio]:
    """Seconds per member of many over seconds of one."""
    found = case("resnet20", 32)
    made = low_precision(found.model, format="int4", members=max(counts))
    ratios = []
    for k in counts[1:]:
        pairs: dict[int, list[float]] = {counts[0]: [], k: []}
        for turn in range(repeats + 1):
            for count in pairs:
                start = time.perf_counter()
                for _block in predict(found.model, made.first(count), found.batches, backend="bfloat16"):
                    pass
                if turn:  # the first is not counted
                    pairs[count].append((time.perf_counter() - start) / count)
        what = f"K = {k}: seconds per member / those at K = {counts[0]}"
        ratios.append(ratio(what, pairs[k], pairs[counts[0]]))
    return ratios


def main(
    parameters: Annotated[list[float], typer.Option(help="Numbers of parameters.")] = [1e6, 1e7, 1e8, 1e9],  # noqa: B006
    members: Annotated[list[int], typer.Option(help="Numbers of members; the first is the measure.")] = [8, 100, 1000],  # noqa: B006
    repeats: Annotated[int, typer.Option(help="Rounds.")] = 2,
) -> None:
    """Measure growth."""
    ratios, speeds = members_cost(members, repeats), {}
    for count in parameters:
        one, speeds[int(count)] = writing(int(count), repeats)
        ratios.append(one)
    keep("growth", ratios, weights_per_second_in_thousand_millions=speeds)


if __name__ == "__main__":
    typer.run(main)
