"""Members' predictions against one plain pass, deep copies, stacked members under vmap, and torch-uncertainty.

    python -m benchmarks.prediction NETWORK [--rows N] [--members 1 --members 4 ...] [--repeats 3] [--no-vmap]
                                    [--uncertainty PYTHON]

NETWORK is resnet20, vit or bert. All ways take turns within a round, on the same rows, batches and threads. The back
end is chosen once, before. torch-uncertainty runs in the environment of the Python that is named, in a process that
waits for its turns; this checkout's `src` is put on its path, so Pluria need not be installed there.
"""

from __future__ import annotations

import copy
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

import pluria
from benchmarks.networks import Case, case
from benchmarks.sides import Ratio, keep, ratio, turns
from pluria.core.ensemble import Ensemble
from pluria.predict import Choice, Runner, choose_backend, logits, runner
from pluria.sample import low_precision

BARS = {("resnet20", "one pass"): 2.0, ("resnet20", "deep copies"): 0.3, ("bert", "one pass"): 2.0}
"""What eight members may cost."""


def one_pass(found: Case) -> Callable[[], object]:
    """The network itself, as a user runs it today."""

    def work() -> None:
        with torch.no_grad():
            for batch in found.batches:
                found.model(batch)

    return work


def copies(found: Case, made: Ensemble) -> list[nn.Module]:
    """Members as networks of their own."""
    several = []
    for params in made:
        twin = copy.deepcopy(found.model)
        twin.load_state_dict(params)
        several.append(twin)
    return several


def in_a_loop(found: Case, several: list[nn.Module]) -> Callable[[], object]:
    def work() -> None:
        with torch.no_grad():
            for model in several:
                for batch in found.batches:
                    model(batch)

    return work


def stacked(found: Case, several: list[nn.Module]) -> Callable[[], object]:
    """What torch's own page on ensembling does."""
    params, buffers = stack_module_state(several)  # type: ignore[arg-type]
    base = copy.deepcopy(found.model).to("meta")

    def one(p: dict[str, Any], b: dict[str, Any], x: Any) -> Any:
        return logits(functional_call(base, (p, b), (x,)))

    def work() -> None:
        with torch.no_grad():
            for batch in found.batches:
                vmap(one, in_dims=(0, 0, None))(params, buffers, batch)

    return work


def ours(found: Case, made: Ensemble, choice: Choice) -> Callable[[], object]:
    """All members; the working copy is made anew each time, but for one that is compiled."""

    def new() -> Runner:
        return runner(found.model, made, inputs=lambda batch: (batch, None), backend=choice)

    held = new() if choice.backend == "compiled" else None

    def work() -> None:
        for _ in (held or new())(found.batches):
            pass

    return work


def first_run(found: Case, made: Ensemble, choice: Choice) -> float | None:
    """Seconds of one member's first pass, compiling with it, where the network is compiled."""
    if choice.backend != "compiled":
        return None
    start = time.perf_counter()
    ours(found, made.first(1), choice)()
    seconds = time.perf_counter() - start
    print(f"compiling and one pass: {seconds:.1f} s", flush=True)
    return seconds


class Other:
    """A process of another Python, that takes its turn whenever it is asked."""

    def __init__(self, python: str, name: str, rows: int, members: int, clock: str) -> None:
        self.clock = clock
        line = [python, "-m", "benchmarks.uncertainty", name, str(rows), str(members), str(torch.get_num_threads())]
        path = filter(None, [str(Path(pluria.__file__).parents[1]), os.environ.get("PYTHONPATH")])
        held = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        self.process = subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=held)
        if not (said := self._answer()):
            raise RuntimeError(f"torch-uncertainty does not run in {python}; what it said stands above")
        self.said = said

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def __call__(self) -> float:
        assert self.process.stdin is not None
        print("go", file=self.process.stdin, flush=True)
        wall, cpu = map(float, self._answer().split())
        return wall if self.clock == "wall" else cpu


def measure(
    name: str,
    found: Case,
    made: Ensemble,
    choice: Choice,
    repeats: int,
    side: bool,
    other: Other | None,
    clock: str,
    apart: bool,
) -> list[Ratio]:
    """Ratios of one number of members."""
    several, k = copies(found, made) if side or apart else [], len(made)
    ways: dict[str, Callable[[], object]] = {"one pass": one_pass(found), "pluria": ours(found, made, choice)}
    if apart:
        ways["deep copies"] = in_a_loop(found, several)
    if side:
        ways["stack and vmap"] = stacked(found, several)
        try:
            ways["stack and vmap"]()
        except RuntimeError as problem:
            print(f"stack and vmap: left out, {str(problem).splitlines()[0]}")
            del ways["stack and vmap"]
    if other is not None:
        ways["torch-uncertainty"] = other
    seconds = turns(ways, repeats, clock=clock)
    print(f"K = {k}: " + ", ".join(f"{way} {min(times):.2f} s" for way, times in seconds.items()), flush=True)
    mine = seconds.pop("pluria")
    bars = {way: BARS.get((name, way)) if k == 8 else None for way in seconds}
    return [ratio(f"K = {k}: pluria / {way}", mine, times, bar=bars[way]) for way, times in seconds.items()]


def main(
    name: Annotated[str, typer.Argument(metavar="NETWORK", help="resnet20, vit or bert.")],
    rows: Annotated[int, typer.Option(help="Images or sequences; 0: what takes some seconds.")] = 0,
    members: Annotated[list[int], typer.Option(help="Numbers of members.")] = [1, 4, 8, 16],  # noqa: B006
    repeats: Annotated[int, typer.Option(help="Rounds.")] = 3,
    format: Annotated[str, typer.Option(help="Number system.")] = "int4",
    side: Annotated[bool, typer.Option("--vmap/--no-vmap", help="Time stacked members too.")] = True,
    apart: Annotated[bool, typer.Option("--copies/--no-copies", help="Time deep copies too.")] = True,
    uncertainty: Annotated[str, typer.Option(help="A Python that has torch-uncertainty.")] = "",
    backend_name: Annotated[str, typer.Option("--backend", help="A back end in place of the one that is chosen.")] = "",
    batch: Annotated[int, typer.Option(help="With --backend: examples at a time; 0: batches as they are.")] = 0,
    clock: Annotated[str, typer.Option(help="wall, or cpu: of one thread, on a machine that others use too.")] = "wall",
    out: Annotated[str, typer.Option(help="Name of the result.")] = "",
) -> None:
    """Time predictions of one network."""
    found = case(name, rows or {"resnet20": 1024, "vit": 512}.get(name, 8))
    most = low_precision(found.model, format=format, members=max(members))
    if backend_name:
        choice = Choice(backend_name, batch or None)  # type: ignore[arg-type]
    else:
        choice = choose_backend(found.model, most, found.batches, inputs=lambda batch: (batch, None))
    print(f"{found.what}, {format}\n{choice}", flush=True)
    ratios, compiling = [], first_run(found, most, choice)
    for k in members:
        other = None
        if uncertainty and k > 1:
            other = Other(uncertainty, name, len(found.batches[0]) * len(found.batches), k, clock)
        if other is not None:
            print(f"torch-uncertainty: {other.said}")
        ratios += measure(name, found, most.first(k), choice, repeats, side, other, clock, apart)
        if other is not None:
            other.process.kill()
    more = {} if compiling is None else {"compiling_and_one_pass_seconds": compiling}
    told = str(choice).splitlines()
    keep(out or f"prediction-{name}", ratios, clock=clock, case=found.what, choice=told, **more)


if __name__ == "__main__":
    typer.run(main)
