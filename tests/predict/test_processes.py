"""Members over processes of this machine, real ones, one of them killed."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import torch

from pluria.predict import Processes, local
from pluria.predict.processes import _end
from predict import tasks


def test_results_are_those_of_one_process_though_a_worker_is_killed(tmp_path: Path) -> None:
    task = tasks.DieOnce(tmp_path / "mark")
    found = list(Processes(2, threads=torch.get_num_threads())(task, range(6)))
    assert task.mark.exists(), "no worker was killed"
    assert found == list(local(task, range(6)))
    assert not multiprocessing.active_children(), "workers end with the work"


def test_errors_of_a_worker_are_raised_here() -> None:
    results = Processes(1, threads=3)(tasks.threads_but_three, [1, 3])
    assert next(results) == 3, "each worker has its own number of threads"
    with pytest.raises(ValueError, match="no 3"):
        next(results)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("kind", ["result", "item"])
def test_what_cannot_be_sent_costs_no_worker(kind: str) -> None:
    task, item = (tasks.unsendable, 1) if kind == "result" else (tasks.square, tasks.Unreadable())
    with pytest.raises(TypeError, match="cannot be sent to another process" if kind == "result" else "no such thing"):
        list(Processes(1)(task, [item]))


def test_nothing_to_do_starts_nothing() -> None:
    assert list(Processes(2)(tasks.refuse_oddly, [])) == []


def test_the_end_of_a_worker_in_words() -> None:
    assert _end(-9) == "killed by SIGKILL, perhaps for want of memory"
    assert _end(-15) == "killed by SIGTERM"
    assert _end(1).startswith("ended by itself with code 1 (a script needs `if __name__")


def test_workers_and_threads_are_one_or_more() -> None:
    with pytest.raises(ValueError, match="got 2 and 0"):
        Processes(2, threads=0)
