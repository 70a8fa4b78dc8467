"""Options that commands share, and how a command shows progress and results."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pluria.core.errors import PluriaError

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes on stderr.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and say what would be done; write nothing.")]
Progress = Callable[[str, float, float], None]


@contextmanager
def told(quiet: bool) -> Iterator[Progress]:
    """A function (what, done, total) that draws a progress bar on stderr where that is a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)

        def tell(what: str, done: float, total: float) -> None:
            bar.update(task, description=what, completed=done, total=total or None)

        yield tell


@contextmanager
def choices(quiet: bool) -> Iterator[None]:
    """What the back end `auto` takes, and why, on stderr."""
    log, handler = logging.getLogger("pluria.predict"), logging.StreamHandler()
    before = log.level
    if not quiet:
        log.setLevel(logging.INFO)
        log.addHandler(handler)
    try:
        yield
    finally:
        log.setLevel(before)
        log.removeHandler(handler)


@contextmanager
def resumable(command: str) -> Iterator[None]:
    """Ctrl-C ends in a sentence and exit code 130."""
    try:
        yield
    except KeyboardInterrupt:
        print(f"interrupted; nothing is lost. To go on: {command}", file=sys.stderr)
        raise typer.Exit(130) from None


def ready(out: Path, suffix: str = "") -> None:
    """Whether a file can be written at `out`, found out before any work; PluriaError where not."""
    if suffix and out.suffix != suffix:
        raise PluriaError(f"{out}: the file is written in the form of {suffix}; give it a name that ends so")
    if out.is_dir():
        raise PluriaError(f"{out} is a folder; name a file in it")
    if not out.absolute().parent.is_dir():
        raise PluriaError(f"{out}: there is no folder {out.parent}; make it first")


@contextmanager
def mistakes() -> Iterator[None]:
    """A wrong value of an option is the user's to mend."""
    try:
        yield
    except (ValueError, TypeError) as error:
        raise PluriaError(str(error)) from None


def show(value: Any) -> None:
    """Print a result as JSON."""
    print(json.dumps(value, indent=1, ensure_ascii=False, default=str))


def several(count: int) -> str:
    """1 member, 2 members."""
    return f"{count} member{'s' * (count != 1)}"


def note(message: str, quiet: bool) -> None:
    """A line on stderr."""
    if not quiet:
        print(message, file=sys.stderr)


def scale_of(granularity: str) -> Any:
    """What one scale is for: a word, or how many inputs."""
    return int(granularity) if granularity.isdigit() else granularity


def pairs(given: list[str], what: str) -> dict[str, Any]:
    """`key=value` pairs, values read as YAML; PluriaError for one without `=`."""
    import yaml

    from pluria.recipe.plain import plain

    found = {}
    for item in given:
        key, equals, value = item.partition("=")
        if not equals:
            raise PluriaError(f"{what} takes key=value, such as depth=20; got {item!r}")
        try:
            found[key] = plain(value)
        except yaml.YAMLError:
            raise PluriaError(f"{what} {item!r}: the value is not valid YAML") from None
    return found
