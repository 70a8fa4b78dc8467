"""Peak memory of predicting with K = 1, 8 and 64 members, each in a process of its own.

    python -m benchmarks.memory [--members 1 --members 8 ...]

The peak is that of the whole process, from the operating system; means over members are added up block by block. The
encoder has 109 million parameters, 438 MB in float32, so that a second copy would be seen. It reads 64 tokens.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Annotated

import typer

from benchmarks.networks import case
from benchmarks.sides import Ratio, keep
from pluria.pool import RunningMean
from pluria.predict import predict
from pluria.sample import low_precision

WAYS = ("loop", "bfloat16")


def peak(backend: str, members: int) -> int:
    """Peak bytes of a fresh process."""
    line = [sys.executable, "-m", "benchmarks.memory", "--child", backend, "--members", str(members)]
    return int(subprocess.run(line, capture_output=True, text=True, check=True).stdout)


def child(backend: str, members: int) -> int:
    """Predict and say the peak of this process."""
    found, mean = case("bert", 1), RunningMean("probability")
    made = low_precision(found.model, members=members, copy=False)
    for block in predict(found.model, made, [found.batches[0][:, :64]], backend=backend):  # type: ignore[arg-type]
        mean = mean.add(block.outputs)
    mean.finish()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(
    members: Annotated[list[int], typer.Option(help="Numbers of members; the first is the measure.")] = [1, 8, 64],  # noqa: B006
    repeats: Annotated[int, typer.Option(help="Processes for each.")] = 3,
    child_of: Annotated[str, typer.Option("--child", hidden=True)] = "",
) -> None:
    """Measure peak memory."""
    if child_of:
        return print(child(child_of, members[0]))
    ratios, found = [], {}
    for way in WAYS:
        peaks = {k: sorted(peak(way, k) for _ in range(repeats)) for k in members}
        found[way] = peaks
        base = peaks[members[0]]
        for k in members[1:]:
            middle = peaks[k][len(peaks[k]) // 2] / base[len(base) // 2]
            what = f"{way}: peak memory at K = {k} / K = {members[0]}"
            ratios.append(Ratio(what, middle, peaks[k][0] / base[-1], peaks[k][-1] / base[0], 1.1))
    keep("memory", ratios, bytes=found)
    return None


if __name__ == "__main__":
    typer.run(main)
