"""How commands behave: what goes to which stream, what is written when, and with which code they end."""

from __future__ import annotations

import json
import os
import pty
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Pluria
from cli.user import MODEL, SCRIPT, process, write_user
from pluria.cli.options import told
from pluria.recipe import run as running

SAMPLE = ("sample", "--model", MODEL, "--checkpoint", "net.safetensors", "--out", "x.pluria")
PREDICT = ("predict", "net.pluria", "--trust", "--data", "rows.npz", "--out", "p.safetensors")

pytestmark = pytest.mark.usefixtures("no_plots")
ESCAPE = "\x1b["


def left(folder: Path) -> dict[str, int]:
    return {
        str(place.relative_to(folder)): place.stat().st_mtime_ns
        for place in folder.rglob("*")
        if "__pycache__" not in place.parts and place.is_file()
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (SAMPLE, "would write x.pluria: 8 members, int5, stratified"),
        (PREDICT, '"members": 4'),
        (("export", "net.pluria", "--out", "x.pt"), "would write x.pt: member 0"),
        (("export", "net.pluria", "--all", "--out", "x"), "would write x: 4 members"),
        (
            ("export", "net.pluria", "--packed", "planes", "--out", "y.pluria"),
            "would write y.pluria: 4 members as",
        ),
        (("run", "recipe.yaml", "--out", "out"), '"forwards": 3'),
    ],
)
def test_a_dry_run_writes_nothing(drawn: Path, pluria: Pluria, arguments: tuple[str, ...], said: str) -> None:
    before = left(drawn)
    result = pluria(*arguments, "--dry-run")
    assert result.code == 0, result.err
    assert said in result.out
    assert left(drawn) == before


def test_a_dry_run_says_what_a_run_would_do(here: Path, pluria: Pluria) -> None:
    plan = json.loads(pluria("run", "recipe.yaml", "--dry-run", "--set", "controls=true", "--set", "seeds=[0,1]").out)
    assert plan["arms"][0] == "full precision"
    assert "INT-3 stratified × 2" in plan["arms"]
    assert plan["rows"] == {"calibration": 20, "figures": 20}
    assert plan["out"] == "out/recipe"


@pytest.mark.parametrize(
    "arguments",
    [
        (*SAMPLE, "--json"),
        (*SAMPLE, "--json", "--dry-run"),
        (*PREDICT, "--json"),
        ("inspect", "net.pluria", "--json"),
        ("inspect", "net.safetensors", "--json"),
        ("methods", "--json"),
        ("doctor", "--json"),
        ("run", "recipe.yaml", "--json"),
    ],
)
def test_json_is_alone_on_stdout(drawn: Path, pluria: Pluria, arguments: tuple[str, ...]) -> None:
    result = pluria(*arguments)
    assert result.code == 0, result.err
    assert json.loads(result.out)
    assert "NaN" not in result.out
    assert "Infinity" not in result.out


def test_json_says_what_was_done(drawn: Path, pluria: Pluria) -> None:
    made = json.loads(pluria(*SAMPLE, "--json", "--members", "3").out)
    assert (made["out"], made["written"], made["members"]) == ("x.pluria", True, 3)
    assert [row["name"] for row in made["noise"]] == ["body.weight", "head.weight"]
    done = json.loads(pluria(*PREDICT, "--json").out)
    assert done == {"out": "p.safetensors", "members": 4, "rows": 40, "shape": [4, 40, 3]}
    scored = json.loads(pluria("score", "p.safetensors", "--json").out)
    assert set(scored) == {"members", "rows", "pool", "temperature", "scores", "scaled", "diversity"}
    rows = {row["name"]: row for row in json.loads(pluria("methods", "--json").out)}
    assert "format" in rows["low_precision"]["options"]
    ready = json.loads(pluria("doctor", "--json").out)
    assert ready["packages"]["torch"]


def test_quiet_is_silent_on_stderr(drawn: Path, pluria: Pluria) -> None:
    import torch
    from safetensors.torch import load_file

    torch.save({"state_dict": load_file("net.safetensors")}, "wrapped.pt")
    sample = ("sample", "--model", MODEL, "--checkpoint", "wrapped.pt", "--out", "w.pluria")
    assert pluria(*sample).err != "", "a note says what was taken off"
    for arguments in (sample, PREDICT, ("run", "recipe.yaml", "--out", "out"), ("report", "out")):
        result = pluria(*arguments, "--quiet")
        assert (result.code, result.err) == (0, "")


@pytest.mark.parametrize("arguments", [("methods",), ("inspect", "net.pluria"), ("run", "recipe.yaml"), ("doctor",)])
def test_no_escape_codes_where_nobody_sees_colours(drawn: Path, pluria: Pluria, arguments: tuple[str, ...]) -> None:
    result = pluria(*arguments)
    assert ESCAPE not in result.out + result.err


def test_progress_is_shown_where_somebody_looks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with told(quiet=False) as progress:
        progress("training", 1, 2)
        progress("predicting", 2, 2)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "predicting" in shown.err
    with told(quiet=True) as progress:
        progress("training", 1, 2)
    assert capsys.readouterr() == ("", "")


def terminal(command: list[str], cwd: Path, env: dict[str, str]) -> str:
    """What a command shows on a terminal."""
    master, slave = pty.openpty()
    child = subprocess.Popen(
        command, cwd=cwd, stdout=slave, stderr=slave, stdin=slave, env={**os.environ, "TERM": "xterm", **env}
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(master)
    assert child.wait(timeout=240) == 0
    return shown.decode()


def test_no_color_on_a_terminal(tmp_path: Path) -> None:
    colours = re.compile(r"\x1b\[[0-9;]*3[0-7]")
    command = [str(SCRIPT), "--help"]
    assert colours.search(terminal(command, tmp_path, {"NO_COLOR": ""}))
    assert not colours.search(terminal(command, tmp_path, {"NO_COLOR": "1"}))


def test_a_bug_of_ours_shows_its_traceback(here: Path, pluria: Pluria, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: Any, **options: Any) -> None:
        raise ZeroDivisionError("a bug of ours")

    monkeypatch.setattr("pluria.recipe.resolve.load_network", broken)
    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        pluria(*SAMPLE)
    monkeypatch.setattr("pluria.recipe.run.prepare", broken)
    with pytest.raises(ZeroDivisionError, match="a bug of ours"):
        pluria("run", "recipe.yaml", "--out", "out")


BUG = """
import sys
import pluria.recipe.folder as folder
def broken():
    raise ZeroDivisionError("a bug of ours")
folder.environment = broken
from pluria.cli import main
sys.argv = ["pluria", "doctor"]
main()
"""


def test_a_bug_of_ours_exits_with_1(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", BUG], cwd=tmp_path, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert "ZeroDivisionError: a bug of ours" in done.stderr
    assert "error: " not in done.stderr


def test_an_interrupted_run_exits_with_130_and_goes_on(
    here: Path, pluria: Pluria, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, done = running.RunFolder.keep, []

    def interrupted(*arguments: Any) -> None:
        keep(*arguments)
        done.append(1)
        if len(done) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(running.RunFolder, "keep", interrupted)
        result = pluria("run", "recipe.yaml", "--out", "out dir", "--set", "batch=8")
    assert result.code == 130
    assert result.err == (
        "interrupted; nothing is lost. To go on: pluria run recipe.yaml --out 'out dir' --set batch=8\n"
    )
    assert result.out == ""
    assert not (here / "out dir" / "figures.json").exists()
    assert len(list((here / "out dir").glob("predictions/*/*/*/*"))) == 2
    assert pluria("run", "recipe.yaml", "--out", "out dir", "--set", "batch=8").code == 0
    assert pluria("run", "recipe.yaml", "--out", "whole", "--set", "batch=8").code == 0
    one, other = (json.loads((here / name / "figures.json").read_text()) for name in ("out dir", "whole"))
    for arm in [*one["arms"], *other["arms"]]:
        del arm["cost"]["seconds"]
    assert one["arms"] == other["arms"]


def test_ctrl_c_ends_a_run_with_130(tmp_path: Path) -> None:
    folder = write_user(tmp_path)
    command = [str(SCRIPT), "run", "recipe.yaml", "--out", "out", "--set", "arms.0.members=3000"]
    # A shell that starts the tests in the background has them ignore Ctrl-C, and children inherit that.
    heard = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    child = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **heard)
    deadline = time.monotonic() + 200
    while child.poll() is None and time.monotonic() < deadline and not list(folder.glob("out/predictions/*/*")):
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=240)
    assert (child.returncode, out) == (130, "")
    assert err.startswith("interrupted; nothing is lost. To go on: pluria run recipe.yaml --out out")
    assert err.count("\n") == 1
    assert not (folder / "out" / "figures.json").exists()


def test_ctrl_c_ends_other_commands_with_130(drawn: Path, pluria: Pluria, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pluria.predict.gather", interrupted)
    result = pluria(*PREDICT)
    assert result.code == 130
    assert "Traceback" not in result.err
    assert not (drawn / "p.safetensors").exists()


def test_a_full_disk_leaves_the_old_file(drawn: Path) -> None:
    """A limit on the size of files stands for a disk without room."""
    before = (drawn / "net.pluria").read_bytes()

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))

    files = left(drawn)
    sample = ("sample", "--model", MODEL, "--checkpoint", "net.safetensors", "--out", "net.pluria", "--format", "int3")
    result = process(*sample, cwd=drawn, env={"PYTHONDONTWRITEBYTECODE": "1"}, preexec_fn=small)
    assert (result.code, result.out) == (2, "")
    assert result.err == (
        "error: File too large; the file was not written, and what was there before is untouched (net.pluria)\n"
    )
    assert (drawn / "net.pluria").read_bytes() == before
    assert left(drawn) == files


def test_no_room_is_said_with_what_to_do(drawn: Path, pluria: Pluria, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    before = (drawn / "net.pluria").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        result = pluria(*SAMPLE[:-1], "net.pluria", "--format", "int3")
        stopped = pluria("run", "recipe.yaml", "--out", "out")
    assert result.code == 2
    assert result.err == (
        "error: No space left on device; the file was not written, and what was there before is untouched "
        "(net.pluria). Free some space and run the same command again\n"
    )
    assert (drawn / "net.pluria").read_bytes() == before
    assert not list(drawn.rglob("*.tmp"))
    assert stopped.code == 2
    assert "No space left on device" in stopped.err
    result = pluria("run", "recipe.yaml", "--out", "out")
    assert result.code == 0, result.err
