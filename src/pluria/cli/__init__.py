"""The command line `pluria`. Results go to stdout, logs and progress to stderr.

Exit codes: 0 success, 2 a mistake the user can mend, 1 a bug of ours, 130 interrupted.
"""

from __future__ import annotations

import atexit
import errno
import gc
import sys

import typer

from pluria.cli import checking, ensembles, generate, language, look, merging, plan, runs, searching, serve
from pluria.core.errors import PluriaError

app = typer.Typer(
    name="pluria",
    help="Many models out of one; one answer out of many.",
    epilog="Start with `pluria demo`. Every command has --help.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
NEED_ARGUMENTS = (
    "run",
    "search",
    "sample",
    "merge",
    "statistics",
    "check",
    "predict",
    "score",
    "inspect",
    "export",
    "plan",
    "serve",
    "perplexity",
    "generate",
)
for module in (runs, searching, ensembles, merging, checking, language, generate, look, plan, serve):
    for name, command in module.COMMANDS.items():
        app.command(name, no_args_is_help=name in NEED_ARGUMENTS)(command)


def main() -> None:
    """Run the command line; a mistake of the user's ends in one message and exit code 2."""
    # Importing torch makes a million objects, which would be looked through again and again: a fifth of its time.
    gc.set_threshold(100_000)
    atexit.register(_leave_objects)
    try:
        app(prog_name="pluria")
    except PluriaError as error:
        _say(str(error))
    except OSError as error:
        if error.errno is None:
            raise
        place = f" ({error.filename})" if error.filename else ""
        _say(f"{error.strerror}{place}{_hint(error)}")


def _leave_objects() -> None:
    """Objects need not be looked through once more at the end, which takes a second; but Triton's bindings would call
    those of theirs that are left leaks, and say so at length."""
    if "triton" not in sys.modules:
        gc.freeze()


def _hint(error: OSError) -> str:
    """What to do about a full disk; what lies where a file is missing."""
    if error.errno == errno.ENOSPC:
        return ". Free some space and run the same command again"
    if error.errno != errno.ENOENT or not isinstance(error.filename, str):
        return ""
    from pathlib import Path

    from pluria.zoo.paths import contents

    return f"; {contents(Path(error.filename))}"


def _say(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(2)
