"""Folders that appear whole, and what a process that was killed while it filled one has left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pluria.store.shards import appearing

FILLING = """
import sys, time
from pluria.store.shards import appearing
with appearing(sys.argv[1]) as folder:
    (folder / "half").write_text("half")
    print("filling", flush=True)
    time.sleep(60)
"""


def filling(out: Path) -> subprocess.Popen[str]:
    """A process that is filling a folder."""
    running = subprocess.Popen([sys.executable, "-c", FILLING, str(out)], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert running.stdout.readline() == "filling\n"
    return running


def fill(out: Path) -> None:
    with appearing(out) as folder:
        (folder / "whole").write_text("whole")


def test_what_a_killed_process_has_left_goes_with_the_next_run(tmp_path: Path) -> None:
    with filling(tmp_path / "out") as running:
        running.kill()
    assert [path.name for path in tmp_path.glob(".*/*")] == ["half"]
    fill(tmp_path / "other")
    assert len(list(tmp_path.glob(".*"))) == 1  # of another folder
    fill(tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["whole"]


def test_what_another_process_is_filling_stays(tmp_path: Path) -> None:
    with filling(tmp_path / "out") as running:
        fill(tmp_path / "out")
        assert [path.name for path in tmp_path.glob(".*/*")] == ["half"]
        running.kill()
