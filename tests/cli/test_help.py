"""Help is complete, and costs no heavy import; what a command leaves as it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cli.conftest import Pluria
from cli.user import process
from pluria.cli import app

COMMANDS = (
    "demo", "run", "search", "report", "sample", "predict", "score", "export", "inspect", "perplexity", "generate",
    "plan", "serve", "methods", "doctor", "check", "merge",
    "statistics",
)  # fmt: skip

LOADED = """
import sys
from pluria.cli import main
sys.argv = ["pluria", *sys.argv[1:]]
try:
    main()
except SystemExit as stop:
    assert stop.code == 0, stop.code
heavy = {"torch", "numpy", "matplotlib", "yaml", "jinja2", "numba", "sklearn", "transformers", "safetensors"}
print(sorted(heavy & set(sys.modules)), file=sys.stderr)
"""


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["sample", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED, *arguments], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "[]"
    assert "Usage: pluria" in done.stdout


def test_every_command_is_listed(pluria: Pluria) -> None:
    said = pluria("--help")
    assert said.code == 0
    assert {command.name for command in app.registered_commands} == set(COMMANDS)
    assert all(f"│ {name} " in said.out for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(pluria: Pluria, name: str) -> None:
    said = pluria(name, "--help")
    assert said.code == 0
    assert said.err == ""
    (command,) = [each for each in app.registered_commands if each.name == name]
    first = (command.callback.__doc__ or "").split(".")[0]
    assert first.split()[0] in said.out
    assert "--json" in said.out or name in ("export", "serve")


@pytest.mark.parametrize("name", ["run", "sample", "predict", "score", "inspect", "export", "serve"])
def test_a_command_without_its_arguments_shows_its_help(pluria: Pluria, name: str) -> None:
    said = pluria(name)
    assert said.code == 2
    assert f"Usage: pluria {name}" in said.out + said.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "No such command 'frobnicate'"),
        (["--nope"], "No such option: --nope"),
        (["sample", "--nope"], "No such option: --nope"),
        (["sample", "--out", "x.pluria"], "Missing option '--model'"),
        (["sample", "--model", "mlp", "--out", "x", "--members", "many"], "Invalid value for '--members'"),
        (["score"], "Usage"),
    ],
)
def test_wrong_usage_exits_with_2(pluria: Pluria, arguments: list[str], said: str) -> None:
    result = pluria(*arguments)
    assert result.code == 2
    assert said in result.err + result.out
    assert "Traceback" not in result.err


def test_the_installed_script(tmp_path: Path) -> None:
    done = process("--help", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "\x1b" not in done.out


def test_objects_are_not_looked_through_at_the_end() -> None:
    code = (
        "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 0))\n"
        "from pluria.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("True\n")
