"""Merging three bfloat16 checkpoints from disk: Pluria, mergekit, and a bare copy of as many bytes, side by side.

    python -m benchmarks.merge --mergekit /path/to/mergekit-pytorch [--repeats 3] [--folder DIR] [--out merge]

mergekit lives in an environment of its own, for instance

    python -m venv mergekit-venv && mergekit-venv/bin/pip install torch==2.13.0 mergekit

Checkpoints of 551 million parameters, a base and three fine-tunes, are made in a folder that is removed at the end. All
ways read the same recipe and the same files, one after the other within each repeat, each in a process of its own.

cached   files are in the page cache: what CPU is compared on. Reading a file from a disk takes system time of its own,
         on some virtual machines more than a whole merge, and it is the same for everybody
cold     files are put out of the page cache before every run: what wall time is compared on, with that of the copy

CPU is user and system time of the whole process, imports included; memory is the peak that is not backed by files. The
least CPU and the median wall time over the repeats count. Fixed costs are measured beside them: a process that imports
what a merge needs and ends, and one that also takes the sha256 of three models, which Pluria writes into its manifest.
`floor` does all but merge: it imports torch, and then hashes and copies side by side.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import textwrap
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks import sides
from benchmarks.machine import load_average
from benchmarks.merge_check import Check, check
from benchmarks.processes import Run, clear, prepare, run
from benchmarks.sides import Ratio, ratio

MEMBERS, DENSITY, NOISE = 3, 0.5, 0.0012
CPU, WALL, MEMORY = {"linear": 1 / 3, "ties": 1 / 8}, {"linear": 1.5}, 1 / 3
"""What was aimed at."""

HIDDEN, INNER, LAYERS, WORDS = 1536, 4096, 16, 32000

PLURIA = [sys.executable, "-c", "from pluria.cli import main; main()", "merge"]
COPY = """
import os, sys
out, size, *sources = sys.argv[1:]
held, left = bytearray(2**20), int(size)
with open(out, "wb", buffering=0) as target:
    for source in sources:
        with open(source, "rb", buffering=0) as file:
            while count := file.readinto(held):
                if left > 0:
                    left -= target.write(memoryview(held)[:min(count, left)])
    os.fsync(target.fileno())
"""
"""Reads the sources and writes as much as the merged model has, in pieces of a megabyte."""

FRUGAL = "import atexit, gc; gc.set_threshold(100_000); atexit.register(gc.freeze)"
"""What the command line does, so that importing torch takes less."""

IMPORTS = f"{FRUGAL}; import pluria.cli, pluria.recipe.merging.mergekit"
FLOOR = f"""
{FRUGAL}
import pathlib, sys, torch
from concurrent.futures import ThreadPoolExecutor
from pluria.store.streamed import hashed
with ThreadPoolExecutor(2) as pool:
    for path in sys.argv[3:]:
        pool.submit(hashed, pathlib.Path(path))
{textwrap.indent(COPY, "    ")}
"""
"""What a merge in torch that hashes its sources cannot go below."""

HASHES = "import sys, pathlib, pluria.store.streamed as s; [s.hashed(pathlib.Path(path)) for path in sys.argv[1:]]"


@dataclass(frozen=True)
class Row:
    """One way to merge, with files cold or cached: least CPU, median wall, largest memory, and all runs."""

    method: str
    way: str
    files: str
    cpu: float
    wall: float
    memory: float
    runs: list[Run]


def shapes() -> dict[str, tuple[int, ...]]:
    """A Llama-like network."""
    made: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (WORDS, HIDDEN)}
    for layer in range(LAYERS):
        own = f"model.layers.{layer}."
        made |= {f"{own}self_attn.{name}_proj.weight": (HIDDEN, HIDDEN) for name in "qkvo"}
        made |= {f"{own}mlp.{name}_proj.weight": (INNER, HIDDEN) for name in ("gate", "up")}
        made |= {f"{own}mlp.down_proj.weight": (HIDDEN, INNER)}
        made |= {f"{own}{name}_layernorm.weight": (HIDDEN,) for name in ("input", "post_attention")}
    return made | {"model.norm.weight": (HIDDEN,), "lm_head.weight": (WORDS, HIDDEN)}


def make(folder: Path) -> list[Path]:
    """The base and its fine-tunes, seeded; those that an earlier run has kept are taken as they are."""
    from safetensors.torch import save_file

    files = [folder / "base.safetensors", *(folder / f"{member}.safetensors" for member in range(MEMBERS))]
    if all(file.is_file() for file in files):
        return files
    draw = torch.Generator().manual_seed(0)
    base = {name: (torch.randn(shape, generator=draw) * 0.02).bfloat16() for name, shape in shapes().items()}
    save_file(base, folder / "base.safetensors", {"format": "pt"})
    for member in range(MEMBERS):
        tuned = {n: (v.float() + torch.randn(v.shape, generator=draw) * NOISE).bfloat16() for n, v in base.items()}
        save_file(tuned, folder / f"{member}.safetensors", {"format": "pt"})
    return files


def recipe(method: str, files: list[Path]) -> Path:
    """The recipe that both tools read."""
    base, *members = map(str, files)
    parameters = {"weight": 1.0} | ({"density": DENSITY} if method == "ties" else {})
    held = {"merge_method": method, "dtype": "bfloat16"} | ({"base_model": base} if method == "ties" else {})
    held["models"] = [{"model": member, "parameters": parameters} for member in members]
    path = files[0].parent / f"{method}.yaml"
    path.write_text(yaml.safe_dump(held))
    return path


def commands(method: str, files: list[Path], mergekit: str | None, threads: int) -> dict[str, tuple[list[str], Path]]:
    """Each way's command and what it writes."""
    folder, given = files[0].parent, str(recipe(method, files))
    out = {way: folder / f"{method}-{way}" for way in ("pluria", "copy", "floor", "mergekit")}
    read = [str(files[0].stat().st_size), *map(str, files[0 if method == "ties" else 1 :])]
    ours = out["pluria"].with_suffix(".safetensors")
    made = {
        "copy": ([sys.executable, "-c", COPY, str(out["copy"]), *read], out["copy"]),
        "floor": ([sys.executable, "-c", FLOOR, str(out["floor"]), *read], out["floor"]),
        "pluria": ([*PLURIA, given, "--out", str(ours), "--threads", str(threads), "--restart"], ours),
    }
    if mergekit is not None:
        made["mergekit"] = ([mergekit, given, str(out["mergekit"])], out["mergekit"])
    return made


def measure(
    method: str, files: list[Path], mergekit: str | None, repeats: int, threads: int
) -> tuple[list[Row], Check]:
    """All ways of one method in turn, and what Pluria's result is worth."""
    ways = commands(method, files, mergekit, threads)
    runs: dict[tuple[str, str], list[Run]] = {}
    for _ in range(repeats):
        for state in ("cached", "cold"):
            for way, (command, out) in ways.items():
                if state == "cold" and way == "mergekit":
                    continue  # its wall time beside a copy's says nothing that cached files do not
                clear(out)
                prepare(files, state)
                runs.setdefault((way, state), []).append(run(command, files[0].parent / f"{way}.log"))
    rows = [summary(method, way, state, own) for (way, state), own in runs.items()]
    found = check(method, files, ways["pluria"][1], density=DENSITY)
    for _, out in ways.values():
        clear(out)
    return rows, found


def fixed(files: list[Path], mergekit: str | None, repeats: int) -> list[Row]:
    """What is the same for every merge: imports, and hashes of three models."""
    ways = {"imports, pluria": [sys.executable, "-c", IMPORTS]}
    ways |= {"imports and hashes, pluria": [sys.executable, "-c", f"{IMPORTS}\n{HASHES}", *map(str, files[1:])]}
    ways |= {} if mergekit is None else {"imports, mergekit": [mergekit, "--help"]}
    prepare(files, "cached")
    log = files[0].parent / "fixed.log"
    return [
        summary("fixed", way, "cached", [run(command, log) for _ in range(repeats)]) for way, command in ways.items()
    ]


def summary(method: str, way: str, state: str, runs: list[Run]) -> Row:
    least, median = min(r.cpu for r in runs), statistics.median(r.wall for r in runs)
    return Row(method, way, state, least, median, max(r.memory for r in runs), runs)


def ratios(method: str, rows: list[Row], fixed: list[Row]) -> list[Ratio]:
    """Pluria over the others, run by run; CPU also beyond what each needs for importing alone."""
    by, wall = {(row.way, row.files): row.runs for row in rows}, "wall, cold files / of a copy"
    ours, copies, floor = (each(by[way, "cold"], "wall") for way in ("pluria", "copy", "floor"))
    found = [
        ratio(f"{method}: {wall}", ours, copies, bar=WALL.get(method)),
        ratio(f"{method}, floor: {wall}", floor, copies),
    ]
    if ("mergekit", "cached") in by:
        ways, base = ("pluria", "mergekit"), {row.way: row.cpu for row in fixed}
        cpu, clock, memory = ([each(by[way, "cached"], what) for way in ways] for what in ("cpu", "wall", "memory"))
        beyond = [[one - base[f"imports, {way}"] for one in own] for way, own in zip(ways, cpu, strict=True)]
        found += [
            ratio(f"{method}: CPU / mergekit's", *cpu, bar=CPU[method]),
            ratio(f"{method}, floor: CPU / mergekit's", each(by["floor", "cached"], "cpu"), cpu[1]),
            ratio(f"{method}: CPU beyond imports / mergekit's", *beyond),
            ratio(f"{method}: wall, cached files / mergekit's", *clock),
            ratio(f"{method}: memory / mergekit's", *memory, bar=MEMORY),
        ]
    return found


def each(runs: list[Run], what: str) -> list[float]:
    return [getattr(run, what) for run in runs]


def table(rows: list[Row]) -> Table:
    out = Table("method", "way", "files", "CPU s", "of it system", "wall s", "memory MB")
    for row in rows:
        system = min(row.runs, key=lambda r: r.cpu).system
        figures = f"{row.cpu:.1f}", f"{system:.1f}", f"{row.wall:.1f}", f"{row.memory:.0f}"
        out.add_row(row.method, row.way, row.files, *figures)
    return out


def main(
    mergekit: Annotated[str | None, typer.Option(help="The executable mergekit-pytorch; left out: without it.")] = None,
    method: Annotated[list[str], typer.Option(help="linear, ties; may be repeated.")] = ["linear", "ties"],  # noqa: B006
    repeats: int = 3,
    threads: int = os.cpu_count() or 1,
    folder: Annotated[Path | None, typer.Option(help="Where 7 GB are free; a temporary folder by default.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Use what is in the folder, and leave it there.")] = False,
    out: Annotated[str, typer.Option(help="Name of the result.")] = "merge",
) -> None:
    """Merge three checkpoints in every way, and print what each took."""
    before, console, results, found = load_average(), Console(width=100), {}, []
    with nullcontext(folder) if keep and folder else tempfile.TemporaryDirectory(dir=folder) as place:
        files = make(Path(place))
        always = fixed(files, mergekit, repeats)
        console.print(table(always))
        for one in method:
            rows, right = measure(one, files, mergekit, repeats, threads)
            found += ratios(one, rows, always)
            results[one] = {"merges": list(map(asdict, rows)), "check": asdict(right)}
            console.print(table(rows), asdict(right))
    about = {"merge_threads": threads, "load_average": before, "parameters": sum(map(count, shapes().values()))}
    sides.keep(out, found, **about, fixed=list(map(asdict, always)), methods=results)


def count(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


if __name__ == "__main__":
    typer.run(main)
