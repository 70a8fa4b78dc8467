"""Whether it pays to write the next member while this one runs: in another working copy, by one thread beside torch's.

    python -m benchmarks.ahead [--members 6] [--repeats 5]

The plain way writes a member on all threads and then runs it. A ratio above one says that running ahead took longer.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import torch
import typer

from benchmarks.networks import Case, case
from benchmarks.sides import Ratio, keep, ratio, turns
from pluria.predict.backends import LAYERS, _fast, noted
from pluria.sample import low_precision

CASES = (("resnet20", 256), ("long", 1))


def measure(found: Case, members: int, repeats: int) -> Ratio:
    """Both ways in turn, in bfloat16."""
    made, x = noted(low_precision(found.model, format="int4", members=members)), found.batches[0]
    x = x.bfloat16() if x.is_floating_point() else x
    way = (torch.device("cpu"), torch.bfloat16, LAYERS["bfloat16"], True)
    copies = [_fast(found.model, made, *way)[1:] for _ in range(2)]

    def write(member: int) -> None:
        for writer in copies[member % 2][1]:
            writer(member)

    def run(member: int) -> None:
        with torch.inference_mode():
            copies[member % 2][0](x)

    def plain() -> None:
        for member in range(members):
            write(member)
            run(member)

    def ahead() -> None:
        coming = pool.submit(write, 0)
        for member in range(members):
            coming.result()
            if member + 1 < members:
                coming = pool.submit(write, member + 1)
            run(member)

    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        seconds = turns({"ahead": ahead, "plain": plain}, repeats)
    what = f"{found.what}, bfloat16: writing the next member meanwhile / before"
    return ratio(what, seconds["ahead"], seconds["plain"])


def main(
    members: Annotated[int, typer.Option(help="INT-4 members.")] = 6,
    repeats: Annotated[int, typer.Option(help="Turns of both ways.")] = 5,
) -> None:
    """Measure on this machine, on as many threads as torch takes."""
    keep("ahead", [measure(case(name, rows), members, repeats) for name, rows in CASES])


if __name__ == "__main__":
    typer.run(main)
