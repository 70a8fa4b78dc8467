"""Runs over several processes and over Ray keep the bits of a run in one process, workers killed or not."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pluria.core.errors import EngineError
from pluria.predict import Processes, Ray, runner
from pluria.recipe import work as module
from pluria.recipe.folder import RunFolder
from pluria.recipe.prepare import prepare
from pluria.recipe.run import run
from pluria.recipe.work import Work, missing
from recipe.finished import ARMS, Stop, asked, figures_of, kept, without_times
from recipe.tiny import recipe


class Kill:
    """Progress that kills a process of this one with signal 9 once a member is done."""

    def __init__(self) -> None:
        self.killed: list[int] = []

    def __call__(self, what: str, done: float, total: float) -> None:
        if not self.killed and (alive := multiprocessing.active_children()):
            assert alive[0].pid is not None
            self.killed.append(alive[0].pid)
            os.kill(alive[0].pid, signal.SIGKILL)


def same(figures: dict[str, Any], others: dict[str, Any]) -> bool:
    """Whether two runs agree in all but seconds, date, command and engine."""
    one, other = (without_times(found) for found in (figures, others))
    for found in (one, other):
        del found["environment"]["engine"]
    return one == other


def test_a_run_goes_on_in_processes_though_one_is_killed(done: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(asked(done), tmp_path / "out", progress=Stop(3))
    kill = Kill()
    found = run(asked(done), tmp_path / "out", mapper=Processes(2), progress=kill)
    assert kill.killed, "no worker was killed"
    assert kept(tmp_path / "out") == kept(done / "out")
    assert same(found, figures_of(done / "out"))
    assert found["environment"]["engine"] == "processes, 2 workers"
    assert RunFolder(tmp_path / "out").read("environment.json")["engine"] == "processes, 2 workers"
    assert not multiprocessing.active_children()


def test_a_run_over_ray_has_the_bits_of_one_process(done: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed: pip install 'pluria[ray]'")
    found = run(asked(done), tmp_path / "out", mapper=Ray(2))
    assert kept(tmp_path / "out") == kept(done / "out")
    assert same(found, figures_of(done / "out"))
    assert found["environment"]["engine"] == "ray, 2 workers"


def test_arms_that_share_members_are_predicted_once(task: Path) -> None:
    arms = [{**ARMS[0], "members": 2}, {**ARMS[0], "members": 4}, {**ARMS[0], "pool": "mean_logit"}]
    prepared = prepare(recipe(task, arms=arms, controls=False))
    pieces = missing(prepared, RunFolder(task / "out"))
    places = [(prepared.jobs[piece.job].place(piece.network), piece.position) for piece in pieces]
    assert len(places) == len(set(places)) == 5, "four members and full precision"
    assert {piece.parts for piece in pieces} == {("calibration", "figures")}


@pytest.mark.parametrize(("name", "value"), [("threads", 7), ("torch", "1.0"), ("processor", "NONE")])
def test_a_worker_of_another_kind_is_refused(task: Path, name: str, value: object) -> None:
    prepared = prepare(asked(task))
    work = Work(prepared)
    work.way[name] = value
    with pytest.raises(EngineError, match=rf"not of the kind .* pinned to \({name} .*, wanted {value}\)"):
        work(missing(prepared, RunFolder(task / "out"))[0])


def test_a_member_is_the_same_alone_and_drawn_with_others(task: Path) -> None:
    prepared = prepare(asked(task))
    pieces = missing(prepared, RunFolder(task / "out"))
    forwards, backwards = Work(prepared), Work(prepared)
    made = {piece: forwards(piece) for piece in pieces}
    for piece in reversed(pieces):
        again = backwards(piece)
        assert all(torch.equal(outputs, again[part][0]) for part, (outputs, _) in made[piece].items())


def test_members_drawn_together_have_one_working_copy(task: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(module, "runner", lambda *args, **options: made.append(args) or runner(*args, **options))
    prepared = prepare(recipe(task, arms=ARMS[:1], controls=False))
    pieces, work = missing(prepared, RunFolder(task / "out")), Work(prepared)
    for piece in pieces:
        work(piece)
    assert len(pieces) > len(made) == len({(piece.job, piece.network, piece.together) for piece in pieces})


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_disk_ends_in_a_message_and_the_run_goes_on_later(done: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=72k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        with pytest.raises(OSError, match="No space left on device; the file was not written") as caught:
            run(asked(done), disk / "out", mapper=Processes(1))
        assert caught.value.errno == errno.ENOSPC
        assert not multiprocessing.active_children(), "workers end with the work"
        assert 0 < len(kept(disk / "out")) < len(kept(done / "out"))
        assert kept(disk / "out").items() <= kept(done / "out").items()
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        assert same(run(asked(done), disk / "out"), figures_of(done / "out"))
        assert kept(disk / "out") == kept(done / "out")
    finally:
        subprocess.run(["umount", disk], check=True)
