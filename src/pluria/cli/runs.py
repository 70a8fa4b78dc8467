"""pluria demo, run and report: whole comparisons, from a recipe to a report."""

from __future__ import annotations

import shlex
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pluria.cli.options import DryRun, Json, Quiet, note, ready, resumable, show, told

if TYPE_CHECKING:
    from pluria.recipe.schema import Recipe

Change = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Change a key: data.rows=500.")]
Engine = Annotated[str, typer.Option(help="Where members are predicted: local, processes or ray.")]
Workers = Annotated[int | None, typer.Option(help="Processes or actors; as many as the cores allow by default.")]
Address = Annotated[str | None, typer.Option(help="host:port of a Ray cluster; without it, one on this machine.")]
Restart = Annotated[bool, typer.Option("--restart", help="Forget what an earlier run kept in this folder.")]

FIGURES = {
    "title",
    "headline",
    "warnings",
    "main",
    "reference",
    "arms",
    "equal_bits",
    "noise",
    "environment",
    "rows",
    "recipe",
}
"""What figures.json has to hold for a report."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the run and its report.")] = Path("out/demo"),
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train a small CNN on handwritten digits, draw low-precision ensembles, and compare them with every control."""
    recipe = files("pluria.recipe") / "recipes" / "demo.yaml"
    _run(Path(str(recipe)), [], out, engine={}, restart=True, dry_run=False, quiet=quiet, json=json)


def run(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe. An import path in it runs the code it names.")],
    out: Annotated[Path | None, typer.Option(help="Run folder; out/<recipe's name> by default.")] = None,
    change: Change = [],  # noqa: B006
    engine: Engine = "local",
    workers: Workers = None,
    address: Address = None,
    restart: Restart = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Run a recipe: draw, predict, score, report. An interrupted run goes on where it stopped, to the same bits.

    Example: pluria run recipe.yaml --set seeds=[0,1,2] --out out/mine
    """
    chosen = {"name": engine, "workers": workers, "address": address}
    place = out or Path("out") / recipe.stem
    _run(recipe, change, place, engine=chosen, restart=restart, dry_run=dry_run, quiet=quiet, json=json)


def report(
    folder: Annotated[Path, typer.Argument(help="A run folder, or its figures.json.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file; report.html in the folder by default.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the whole table as Markdown instead.")] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Write the report of a run again, from its stored figures."""
    from pluria.core.errors import RecipeError
    from pluria.recipe.folder import RunFolder

    place = folder.parent if folder.name == "figures.json" else folder
    figures = RunFolder(place).read("figures.json")
    if figures is None:
        raise RecipeError(f"{place} holds no figures.json; `pluria run` writes one")
    if not isinstance(figures, dict) or FIGURES - set(figures):
        raise RecipeError(f"{place / 'figures.json'} holds no figures of a run; `pluria run` writes them")
    if markdown:
        from pluria.report.tables import markdown as as_markdown

        return print(as_markdown(figures))
    ready(out or place / "report.html")
    _finish(figures, out or place / "report.html", quiet, json)


def _run(
    path: Path,
    change: list[str],
    out: Path,
    *,
    engine: dict[str, Any],
    restart: bool,
    dry_run: bool,
    quiet: bool,
    json: bool,
) -> None:
    from pluria.predict.engine import engine as mapper_of
    from pluria.recipe.prepare import prepare
    from pluria.recipe.reading import read_recipe
    from pluria.recipe.run import run as run_recipe

    recipe, command = read_recipe(path, change), _command()
    mapper = mapper_of(**engine, threads=recipe.threads)
    with told(quiet) as progress:
        if dry_run:
            prepared = prepare(recipe, progress, train=False)
            names = list(dict.fromkeys(job.name for job in prepared.jobs))
            sizes = {"calibration": len(prepared.rows.calibration), "figures": len(prepared.rows.figures)}
            forwards = sum(job.size for job in prepared.jobs)
            plan = {"arms": names, "forwards": forwards, "out": str(out), "rows": sizes}
        else:
            with resumable(command.replace(" --restart", "")):
                figures = run_recipe(recipe, out, restart=restart, mapper=mapper, progress=progress, command=command)
    if dry_run:
        show(plan)
    else:
        _keep(recipe, out / "recipe.yaml", path)
        _finish(figures, out / "report.html", quiet, json)


def _keep(recipe: Recipe, place: Path, given: Path) -> None:
    """Write the recipe as it was run, defaults filled in, for others to read; never over the one that was given."""
    import yaml

    from pluria.store.atomic import replacing

    if place.exists() and place.samefile(given):
        return
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    with replacing(place) as file:
        file.write(text.encode())


def _finish(figures: dict[str, Any], place: Path, quiet: bool, json: bool) -> None:
    from pluria.report.html import write_report

    write_report(figures, place)
    for line in figures["notes"]:
        note(line, quiet)
    for line in figures["warnings"]:
        note(f"warning: {line}", False)
    if json:
        show(figures)
    else:
        from rich.console import Console

        from pluria.report.tables import table

        # Names are the user's own: a bracket in one of them is no markup.
        console = Console(markup=False)
        console.print(table(figures))
        console.print(figures["headline"], highlight=False, soft_wrap=True)
        console.print(f"report: {place}", highlight=False, soft_wrap=True)


def _command() -> str:
    return shlex.join(["pluria", *sys.argv[1:]])


COMMANDS = {"demo": demo, "run": run, "report": report}
