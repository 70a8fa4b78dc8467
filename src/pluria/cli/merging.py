"""pluria merge and statistics: several checkpoints to one, and what data say of one that merges go by."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pluria.cli.ensembles import Arguments, DataArguments
from pluria.cli.options import DryRun, Json, Quiet, mistakes, note, pairs, ready, resumable, show, told
from pluria.cli.rows import rows_for

if TYPE_CHECKING:
    from pluria.recipe.merging import Cost, Merge

Model = Annotated[
    str | None, typer.Option(help="package.module:Class (runs that code), a zoo name, or a Hugging Face folder.")
]
Trust = Annotated[bool, typer.Option("--trust", help="Run the code that comes with a Hugging Face folder.")]
Rows = Annotated[int, typer.Option(help="Rows of each data set that are run at most.")]
Batch = Annotated[int, typer.Option(help="Examples at a time.")]


def merge(
    method: Annotated[str, typer.Argument(help="A method, see `pluria methods`; or a YAML file in mergekit's form.")],
    models: Annotated[
        list[str] | None,
        typer.Argument(help="Safetensors or torch files, or Hugging Face folders; for some methods adapters of PEFT."),
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
    model: Model = None,
    argument: Arguments = [],  # noqa: B006
    data: Annotated[
        list[str], typer.Option(help="Rows for methods that run the network, once, or once for each model.")
    ] = [],  # noqa: B006
    data_argument: DataArguments = [],  # noqa: B006
    rows: Rows = 1000,
    batch: Batch = 250,
    align: Annotated[
        str | None, typer.Option(help="Permute hidden places of all models to the first's, by weights or activations.")
    ] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Refresh batch norm, or give collapsed layers their spread back.")
    ] = False,
    trust: Trust = False,
    shard: Annotated[float, typer.Option(help="GB in a file of a folder.")] = 5.0,
    threads: Annotated[int | None, typer.Option(help="As many as torch has, if left out.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a folder that is not empty.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what an interrupted merge has left.")] = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Merge checkpoints of one architecture into one. An interrupted merge goes on where it stopped, to the same bytes.

    Examples: pluria merge linear a.safetensors b.safetensors --out c.safetensors; pluria merge merge.yaml --out folder;
    pluria merge greedy_soup a.safetensors b.safetensors --model my.net:Net --data held.npz --out soup.safetensors
    """
    with mistakes():
        if out is None:
            raise ValueError("--out is missing: name a .safetensors file, or a folder")
        held = {"base": base, "weights": weights, "options": pairs(change, "--set"), "dtype": dtype}
        spec = _spec(method, models or [], {**held, "counters": counters, "seed": seed})
        named = {"argument": pairs(argument, "--argument"), "data_argument": pairs(data_argument, "--data-argument")}
        run = {"model": model, "data": data, "align": align, "repair": repair, "rows": rows, "batch": batch}
        place = {"shard": int(shard * 1e9), "overwrite": overwrite, "dry_run": dry_run}
        with told(quiet) as progress, resumable(shlex.join(["pluria", *sys.argv[1:]]).replace(" --restart", "")):
            options = {**place, "told": lambda cost: note(_said(cost), quiet)}
            streams: dict[str, Any] = {"threads": threads, "restart": restart}
            streams["progress"] = lambda done, total: progress("writing", done, total)
            found = _merged(spec, out, {**run, **named, "trust": trust}, options, streams)
    what = f"{found['parameters']:,} parameters" if "parameters" in found else f"{found['matrices']} matrices"
    if json:
        show({"out": str(out), "written": not dry_run, **found})
    else:
        print(f"{'would write' if dry_run else 'wrote'} {out}: {what}, {spec.method}")


def statistics(
    kind: Annotated[str, typer.Argument(help="fisher or regmean: the method that reads them.")],
    checkpoint: Annotated[str, typer.Argument(help="The trained tensors.")],
    out: Annotated[Path, typer.Option(help="The safetensors file to write.")],
    model: Annotated[str, typer.Option(help="As in `pluria merge`.")],
    data: Annotated[str, typer.Option(help="A .npz file, or a reader's name; its targets are not read.")],
    argument: Arguments = [],  # noqa: B006
    data_argument: DataArguments = [],  # noqa: B006
    change: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="An option: sampled=true, for fisher.")
    ] = [],  # noqa: B006
    rows: Rows = 1000,
    batch: Batch = 250,
    trust: Trust = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> None:
    """Measure one network on its own data, for a later merge: `pluria merge fisher A B --set statistics=[a, b]`.

    Example: pluria statistics fisher a.safetensors --model my.net:Net --data a.npz --out fisher-a.safetensors
    """
    from pluria.recipe.merging.statistics import measured
    from pluria.recipe.merging.target import refuse_inputs
    from pluria.recipe.parts import Network
    from pluria.recipe.resolve import load_network
    from pluria.store.tensors import write_tensors

    ready(out)
    refuse_inputs(out, [], [path for path in (*_files(checkpoint), Path(data)) if path.is_file()])
    with mistakes():
        spec = Network(model=model, arguments=pairs(argument, "--argument"), checkpoint=checkpoint)
        network, _ = load_network(spec, trust=trust)
        held = rows_for(network, data, pairs(data_argument, "--data-argument"), rows).batches(batch)
        table = measured(kind, network, [x for x, _ in held], pairs(change, "--set"))
    if not dry_run:
        write_tensors(out, table, {"format": "pt", "statistics": kind})
    if json:
        show({"out": str(out), "written": not dry_run, "shapes": {name: list(t.shape) for name, t in table.items()}})
    else:
        print(f"{'would write' if dry_run else 'wrote'} {out}: {kind} of {len(table)} tensors")


def _merged(
    spec: Merge, out: Path, run: dict[str, Any], options: dict[str, Any], streams: dict[str, Any]
) -> dict[str, Any]:
    """Merge in pieces, in memory, or adapters among themselves; what is shown of it."""
    from pluria.recipe.catalogue import methods
    from pluria.recipe.merging import merge_files
    from pluria.recipe.merging.adapters import ONTO_BASE, TO_FOLDER, onto_base, write_adapter
    from pluria.recipe.merging.held import merge_held
    from pluria.recipe.merging.target import refuse_inputs

    refuse_inputs(out, [], [Path(data) for data in run["data"] if Path(data).is_file()])
    asks = bool(run["model"] or run["data"] or run["align"] or run["repair"])
    runs = asks or any(row.runner for row in methods("merge") if row.name == spec.method)
    if runs and spec.method in (*ONTO_BASE, *TO_FOLDER):
        raise ValueError(f"{spec.method} runs no network on rows; leave out --model, --data, --align and --repair")
    if spec.method in TO_FOLDER:
        return {"matrices": write_adapter(spec, out, overwrite=options["overwrite"], dry_run=options["dry_run"])}
    if not runs:
        whole = onto_base(spec) if spec.method in ONTO_BASE else spec
        cost = merge_files(whole, out, **options, **streams)
    else:
        cost = merge_held(spec, out, **options, **_bench(run))
    return {"parameters": cost.parameters, "cost": vars(cost)}


def _files(checkpoint: str) -> list[Path]:
    """The files of a checkpoint, or of its folder."""
    place = Path(checkpoint)
    return list(place.iterdir()) if place.is_dir() else [place]


def _bench(run: dict[str, Any]) -> dict[str, Any]:
    """Network, rows, and what is done before and after, for a merge in memory."""
    from pluria.recipe.parts import Network
    from pluria.recipe.resolve import built

    if run["align"] not in (None, "weights", "activations"):
        raise ValueError(f"--align is weights or activations; got {run['align']!r}")
    if (run["model"] is None) != (not run["data"]):
        raise ValueError("a network and rows go together: give both --model and --data")
    ready = {"align": run["align"], "repair": run["repair"]}
    if run["model"] is None:
        return ready
    spec = Network(model=run["model"], arguments=run["argument"])
    network = built(spec, trust=run["trust"])
    sets = [rows_for(network, data, run["data_argument"], run["rows"]) for data in run["data"]]
    about = {name: run[name] for name in ("model", "argument", "data", "data_argument", "batch")}
    return {**ready, "network": network, "rows": [held.batches(run["batch"]) for held in sets], "about": about}


def _spec(method: str, models: list[str], held: dict[str, Any]) -> Merge:
    """The merge that is asked for, in words or by a file."""
    from pluria.recipe.merging import Merge
    from pluria.recipe.merging.mergekit import read_mergekit

    if method.endswith((".yaml", ".yml")):
        given = [name for name in ("base", "weights", "options", "dtype") if held[name]]
        if models or given:
            what = f"--{given[0]}".replace("--options", "--set") if given else "models"
            raise ValueError(f"{what}: {method} says that itself; change it there")
        return replace(read_mergekit(method), seed=held["seed"], counters=held["counters"])
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
    from pluria.core.sizes import readable

    times = "once" if cost.readings == 1 else f"up to {cost.readings} times"
    return (
        f"{cost.models} models of {cost.parameters:,} parameters in {cost.tensors} tensors, read {times}: "
        f"{readable(cost.read)} in, {readable(cost.written)} out of {readable(cost.free)} that are free; "
        f"{readable(cost.memory)} at work on {cost.threads} thread{'s' * (cost.threads != 1)}"
    )


COMMANDS = {"merge": merge, "statistics": statistics}
