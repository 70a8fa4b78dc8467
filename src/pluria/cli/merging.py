"""pluria merge: several checkpoints to one, piece by piece."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pluria.cli.options import DryRun, Json, Quiet, mistakes, note, pairs, resumable, show, told

if TYPE_CHECKING:
    from pluria.recipe.merging import Cost, Merge


def merge(
    method: Annotated[str, typer.Argument(help="A method, see `pluria methods`; or a YAML file in mergekit's form.")],
    models: Annotated[
        list[str] | None, typer.Argument(help="Safetensors or torch files, or Hugging Face folders.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A .safetensors file, or a folder.")] = None,
    base: Annotated[str | None, typer.Option(help="The model that task vectors start from.")] = None,
    weights: Annotated[str | None, typer.Option(help="One for each model, as 2,1,1; equal if left out.")] = None,
    change: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="An option of the method: density=0.2.")
    ] = [],  # noqa: B006
    dtype: Annotated[str | None, typer.Option(help="Of what is written; by default that of the models.")] = None,
    counters: Annotated[
        str, typer.Option(help="Batch norm's counts of batches: first (or the base's), or sum.")
    ] = "first",
    seed: Annotated[int, typer.Option(help="Of methods that draw.")] = 0,
    shard: Annotated[float, typer.Option(help="GB in a file of a folder.")] = 5.0,
    threads: Annotated[int | None, typer.Option(help="As many as torch has, if left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder that is not empty.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what an interrupted merge has left.")] = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Merge checkpoints of one architecture into one. An interrupted merge goes on where it stopped, to the same bytes.

    Examples: pluria merge linear a.safetensors b.safetensors --out c.safetensors; pluria merge merge.yaml --out folder
    """
    from pluria.recipe.merging import merge_files

    with mistakes():
        if out is None:
            raise ValueError("--out is missing: name a .safetensors file, or a folder")
        held = {"base": base, "weights": weights, "options": pairs(change, "--set"), "dtype": dtype}
        spec = _spec(method, models or [], {**held, "counters": counters, "seed": seed})
        options: dict[str, Any] = {"threads": threads, "shard": int(shard * 1e9), "overwrite": overwrite}
        with told(quiet) as progress, resumable(shlex.join(["pluria", *sys.argv[1:]]).replace(" --restart", "")):
            cost = merge_files(
                spec,
                out,
                **options,
                restart=restart,
                dry_run=dry_run,
                told=lambda cost: note(_said(cost), quiet),
                progress=lambda done, total: progress("writing", done, total),
            )
    if json:
        show({"out": str(out), "written": not dry_run, "cost": vars(cost)})
    else:
        print(f"{'would write' if dry_run else 'wrote'} {out}: {cost.parameters:,} parameters, {spec.method}")


def _spec(method: str, models: list[str], held: dict[str, Any]) -> Merge:
    """The merge that is asked for, in words or by a file."""
    from pluria.recipe.merging import Merge
    from pluria.recipe.merging.mergekit import read_mergekit

    if method.endswith((".yaml", ".yml")):
        given = [name for name in ("base", "weights", "options", "dtype") if held[name]]
        if models or given:
            what = f"--{given[0]}".replace("--options", "--set") if given else "models"
            raise ValueError(f"{what}: {method} says that itself; change it there")
        return read_mergekit(method)
    if held["weights"] is not None:
        held["weights"] = _numbers(held["weights"])
    return Merge(method, tuple(models), **held)


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise ValueError(f"--weights are numbers with commas between them, as 2,1,1; got {text!r}") from None


def _said(cost: Cost) -> str:
    """What a merge will cost, in a line."""
    times = "once" if cost.readings == 1 else f"up to {cost.readings} times"
    return (
        f"{cost.models} models of {cost.parameters:,} parameters in {cost.tensors} tensors, read {times}: "
        f"{_size(cost.read)} in, {_size(cost.written)} out of {_size(cost.free)} that are free; "
        f"{_size(cost.memory)} at work on {cost.threads} thread{'s' * (cost.threads != 1)}"
    )


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


COMMANDS = {"merge": merge}
