"""pluria search: the best ensemble within budgets, from a recipe or from a network and rows."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pluria.cli.options import DryRun, Json, Quiet, pairs, resumable, show, told

Change = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe.")]


def search(
    what: Annotated[str, typer.Argument(metavar="RECIPE_OR_MODEL", help="A YAML file, or a network as in `sample`.")],
    data: Annotated[str | None, typer.Option(help="A .npz file or a reader's name; in place of the recipe's.")] = None,
    data_argument: Annotated[
        list[str], typer.Option("--data-argument", metavar="KEY=VALUE", help="Of the reader.")
    ] = [],  # noqa: B006
    checkpoint: Annotated[str | None, typer.Option(help="Trained tensors of the network.")] = None,
    argument: Annotated[
        list[str], typer.Option("--argument", metavar="KEY=VALUE", help="An argument of the network.")
    ] = [],  # noqa: B006
    forwards: Annotated[float | None, typer.Option(help="What the search may spend; 200 by default.")] = None,
    memory_bits: Annotated[float | None, typer.Option(help="Most bits of all members together.")] = None,
    inference_forwards: Annotated[int | None, typer.Option(help="Most members for each example.")] = None,
    trainings: Annotated[int | None, typer.Option(help="Most separately trained networks of an ensemble.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of drawn members; 0 by default.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for what is found.")] = Path("out/search"),
    change: Change = [],  # noqa: B006
    restart: Annotated[bool, typer.Option("--restart", help="Forget what an earlier search kept.")] = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Find the best ensemble within budgets, on calibration rows alone, and hold it against its controls.

    Example: pluria search recipe.yaml --forwards 200 --inference-forwards 8 --out out/search
    """
    from pluria.search.run import planned
    from pluria.search.run import search as run_search
    from pluria.search.spec import read_search

    rows = _rows(data, data_argument)
    budgets: dict[str, Any] = {
        "forwards": forwards,
        "memory_bits": memory_bits,
        "inference_forwards": inference_forwards,
        "trainings": trainings,
        "seed": seed,
    }
    network = _network(what, pairs(argument, "--argument"), checkpoint)
    recipe, budget, own = read_search(_given(what, network, rows, change), **budgets)
    if dry_run:
        plan = planned(recipe, budget, own_arms=own)
        kinds = [job.name for job in plan.kinds]
        sizes = {"calibration": len(plan.rows.calibration), "figures": len(plan.rows.figures)}
        held = plan.reserve / plan.ledger.unit
        return show({"kinds": kinds, "forwards": budget.forwards, "held_back": held, "rows": sizes, "out": str(out)})
    command = shlex.join(["pluria", *sys.argv[1:]]).replace(" --restart", "")
    with told(quiet) as progress, resumable(command):
        found = run_search(recipe, budget, out, own_arms=own, restart=restart, progress=progress)
    _finish(found, out, json)


def _network(what: str, arguments: dict[str, Any], checkpoint: str | None) -> dict[str, Any] | None:
    """The network that is named in place of a recipe; PluriaError for its options beside a recipe."""
    from pluria.core.errors import PluriaError

    if not what.endswith((".yaml", ".yml")):
        return {"model": what, "arguments": arguments, "checkpoint": checkpoint}
    if arguments or checkpoint is not None:
        raise PluriaError("--argument and --checkpoint are of a network; a recipe says them itself")
    return None


def _rows(data: str | None, arguments: list[str]) -> dict[str, Any] | None:
    from pluria.core.errors import PluriaError

    given = pairs(arguments, "--data-argument")
    if data is None:
        if given:
            raise PluriaError("--data-argument goes with --data")
        return None
    return {"reader": "arrays", "arguments": {"path": data, **given}} if data.endswith(".npz") else {
        "reader": data, "arguments": given}  # fmt: skip


def _given(what: str, network: dict[str, Any] | None, rows: dict[str, Any] | None, change: list[str]) -> dict[str, Any]:
    """The plain recipe: from the file, or of the network and the rows."""
    from pluria.core.errors import PluriaError
    from pluria.recipe.plain import put, read_plain

    if network is None:
        held = read_plain(what, change)
    else:
        if rows is None:
            raise PluriaError(f"{what} is no recipe (.yaml), so it is a network: say its rows by --data")
        held = {"title": f"Search over {what}", "network": network}
        for one in change:
            put(held, one)
    return held if rows is None else {**held, "data": rows}


def _finish(found: dict[str, Any], out: Path, json: bool) -> None:
    from pluria.search.picture import draw

    for axis in ("bits", "forwards"):
        draw(found, axis, out / f"{axis}.svg")
    if json:
        return show(found)
    from rich.console import Console

    from pluria.search.told import sentences, table

    console = Console(markup=False)
    console.print(table(found))
    for line in sentences(found):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"winner: {out / 'winner.yaml'}", highlight=False, soft_wrap=True)


COMMANDS = {"search": search}
