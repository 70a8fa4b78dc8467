"""Merges that are interrupted: killed, out of disk, by hand; the target is whole, or what it was."""

from __future__ import annotations

import errno
import json
import random
import resource
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pluria import Merge, PluriaError, merge_files
from pluria.merge import engine
from pluria.recipe.merging import files as merging
from pluria.store import receiving
from pluria.store.receiving import work_folder
from recipe.merging.files import digest, shapes, start, write


def interrupted(merge: Merge, out: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C after some tensors were marked."""
    with monkeypatch.context() as patch:
        patch.setattr(receiving, "COMMIT", 1)
        mark, count = receiving.Receiver.mark, [0]

        def counted(self: Any, name: str) -> None:
            mark(self, name)
            count[0] += 1
            if count[0] == after:
                raise KeyboardInterrupt

        patch.setattr(receiving.Receiver, "mark", counted)
        with pytest.raises(KeyboardInterrupt):
            merge_files(merge, out, threads=1)


def read_again(merge: Merge, out: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> list[str]:
    """The merge gone on with; which tensors it merged."""
    done: list[str] = []
    whole = engine.run
    with monkeypatch.context() as patch:
        patch.setattr(
            merging,
            "run",
            lambda task, leaves, skip, **o: (
                done.extend(x.name for x in leaves if x.name not in skip),
                whole(task, leaves, skip=skip, **o),
            ),
        )
        merge_files(merge, out, **options)
    return done


@pytest.mark.parametrize("method", ["dare", "ties", "breadcrumbs", "linear"])
def test_an_interrupted_merge_goes_on_to_the_same_bytes(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TIES measures the whole model, of which some tensors are merged already."""
    models, out = write(tmp_path), tmp_path / "out.safetensors"
    merge = Merge(method, tuple(models[1:]), None if method == "linear" else models[0])
    merge_files(merge, out)
    wanted = digest(out)
    out.write_text("old")
    interrupted(merge, out, 3, monkeypatch)
    assert out.read_text() == "old"
    left = read_again(merge, out, monkeypatch, threads=3)
    assert len(left) == 4
    assert digest(out) == wanted
    assert not work_folder(out).exists()


@pytest.mark.parametrize("change", ["options", "restart", "source", "marks"])
def test_another_merge_begins_anew(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, out = write(tmp_path), tmp_path / "out.safetensors"
    merge = Merge("dare", tuple(models[1:]), models[0], options={"density": 0.5})
    interrupted(merge, out, 5, monkeypatch)
    if change == "options":
        merge = Merge("dare", tuple(models[1:]), models[0], options={"density": 0.6})
    if change == "source":
        write(tmp_path)
    if change == "marks":  # a line that a crash has cut off says nothing
        (work_folder(out) / "done").write_bytes(b'"emb"\n"layers.0.w')
    left = read_again(merge, out, monkeypatch, restart=change == "restart")
    assert len(left) == (6 if change == "marks" else 7)


def test_what_was_killed_right_after_it_had_finished_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, out = write(tmp_path), tmp_path / "out.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(receiving.shutil, "rmtree", lambda *arguments, **options: None)
        merge_files(Merge("linear", tuple(models)), out)
    wanted = digest(out)
    assert (work_folder(out) / "done").read_text()
    out.unlink()
    assert len(read_again(Merge("linear", tuple(models)), out, monkeypatch)) == 7
    assert digest(out) == wanted


def test_two_processes_do_not_write_the_same_target(tmp_path: Path) -> None:
    models, out = write(tmp_path), tmp_path / "out.safetensors"
    with receiving._locked(work_folder(out)), pytest.raises(PluriaError, match="another process is merging"):
        merge_files(Merge("linear", tuple(models)), out)
    assert work_folder(out).exists()
    merge_files(Merge("linear", tuple(models)), out)


def begun(out: Path, models: list[str], method: str) -> subprocess.Popen[str]:
    """A merge in a process that has imported everything."""
    process = start(out, models, method=method)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def lasts(out: Path, models: list[str], method: str) -> float:
    """Seconds that a whole merge takes."""
    process, begin = begun(out, models, method), time.perf_counter()
    process.communicate()
    assert process.returncode == 0
    return time.perf_counter() - begin


def kills(folder: Path, method: str, count: int, layers: int = 3) -> tuple[int, int]:
    """Kill merges at random moments, then let one end: old or whole at any time, and the same bytes in the end.

    How many were killed at work, and how many of them when some tensors, but not all, were marked.
    """
    models, out, draw = write(folder, layers=layers), folder / "out.safetensors", random.Random(0)
    whole = lasts(out, models, method)
    wanted, marks, found = digest(out), work_folder(out) / "done", [0, 0]
    for _ in range(count):
        out.write_text("old")
        process = begun(out, models, method)
        time.sleep(draw.uniform(0, whole))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        at_work = process.returncode == -signal.SIGKILL and out.read_bytes() == b"old"
        assert at_work or digest(out) == wanted
        found[0] += at_work
        found[1] += at_work and marks.is_file() and 0 < marks.read_bytes().count(b"\n") < len(shapes(layers))
    lasts(out, models, method)
    assert digest(out) == wanted
    assert not work_folder(out).exists()
    return found[0], found[1]


def test_a_merge_that_is_killed_resumes_to_the_same_hash(tmp_path: Path) -> None:
    kills(tmp_path, "task_arithmetic", 2)


@pytest.mark.study
@pytest.mark.parametrize("method", ["task_arithmetic", "ties"])
def test_killed_at_forty_random_moments(method: str, tmp_path: Path) -> None:
    at_work, between = kills(tmp_path, method, 40, layers=200)  # 42 million weights, some seconds of work
    assert at_work >= 10, f"only {at_work} of 40 were killed before they were done, so that this says little"
    assert between >= 1, "nobody was killed between two tensors, so that nothing was gone on with"


def test_a_full_disk_is_found_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, out = write(tmp_path), tmp_path / "out.safetensors"
    out.write_text("old")
    usage = type("usage", (), {"free": 10**6})
    monkeypatch.setattr("pluria.recipe.merging.cost.shutil.disk_usage", lambda path: usage)
    with pytest.raises(OSError, match=r"takes [0-9.]+ MB and 1 MB are free; nothing was written") as error:
        merge_files(Merge("linear", tuple(models)), out)
    assert error.value.errno == errno.ENOSPC
    assert out.read_text() == "old"
    assert not work_folder(out).exists()


def test_a_disk_that_is_full_nevertheless_leaves_the_old_output(tmp_path: Path) -> None:
    models, out = write(tmp_path), tmp_path / "out.safetensors"
    out.write_text("old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, before[1]))
    try:
        with pytest.raises(OSError, match="nothing was written, and what was there before is untouched"):
            merge_files(Merge("linear", tuple(models)), out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert out.read_text() == "old"
    assert not work_folder(out).exists()
    merge_files(Merge("linear", tuple(models)), out)
    assert torch.isfinite(load_file(out)["emb"]).all()


def test_progress_counts_bytes_also_where_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, out = write(tmp_path), tmp_path / "out.safetensors"
    merge = Merge("linear", tuple(models))
    interrupted(merge, out, 2, monkeypatch)
    seen: list[tuple[int, int]] = []
    merge_files(merge, out, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) == 5
    told = json.loads(json.dumps(seen))[-1]
    assert told[0] == told[1] - 8  # the count of batches is no tensor that is merged
