"""Work shared by torch's own threads, by ours, or by none: all of it is done once, whoever does it."""

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from pluria.numbers import threads
from pluria.numbers.threads import SHARE, share, together

Seen = list[tuple[int, int]]


@pytest.fixture(params=["torch's", "our own"])
def three(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Three threads of torch's, where they can be reached, or of ours."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    if request.param == "our own":
        pool = ThreadPoolExecutor(2)
        monkeypatch.setattr(threads, "_team", lambda: None)
        monkeypatch.setattr(threads, "_pool", lambda process: pool)
        yield
        pool.shutdown()
    elif threads._team() is None:
        pytest.skip("torch's threads are not those of GNU's OpenMP on this machine")
    else:
        yield


def covers(seen: Seen, count: int, block: int) -> bool:
    """Whether pieces are whole blocks that lie one behind the other."""
    seen = sorted(seen)
    starts, stops = [start for start, _ in seen], [stop for _, stop in seen]
    return starts == [0, *stops[:-1]] and stops[-1] == count and all(start % block == 0 for start in starts)


@pytest.mark.parametrize(
    ("count", "pieces"), [(1, 1), (2 * SHARE - 1, 1), (2 * SHARE, 2), (3 * SHARE, 3), (100 * SHARE + 5, 12)]
)
@pytest.mark.parametrize("block", [7, 1024])
@pytest.mark.usefixtures("three")
def test_all_is_done_once_in_pieces_worth_a_thread(count: int, pieces: int, block: int) -> None:
    seen: Seen = []
    share(lambda start, stop: seen.append((start, stop)), count, block)
    assert covers(seen, count, block)
    assert len(seen) in (pieces, pieces + 1)


@pytest.mark.usefixtures("three")
def test_as_many_threads_as_torch_has_work_at_the_same_time() -> None:
    met, names = threading.Barrier(3, timeout=60), set()

    def work(start: int, stop: int) -> None:
        met.wait()
        names.add(threading.get_ident())

    share(work, 3 * SHARE, 1024)
    assert len(names) == 3
    assert threading.get_ident() in names


@pytest.mark.usefixtures("three")
def test_an_error_in_any_thread_is_raised() -> None:
    for bad in range(3):

        def work(start: int, stop: int, bad: int = bad) -> None:
            if start == bad * SHARE:
                raise ZeroDivisionError(f"piece {bad}")

        with pytest.raises(ZeroDivisionError, match=f"piece {bad}"):
            share(work, 3 * SHARE, 1024)


@pytest.mark.usefixtures("three")
def test_work_put_off_is_done_at_the_end_all_at_once() -> None:
    seen: dict[int, Seen] = {0: [], 1: [], 2: []}

    def note(job: int) -> Callable[[int, int], None]:
        return lambda start, stop: seen[job].append((start, stop))

    with together():
        share(note(0), 5 * SHARE, 1024)
        with together():
            share(note(1), 10, 1024)
        share(note(2), 0, 1024)
        assert not any(seen.values())
    assert covers(seen[0], 5 * SHARE, 1024)
    assert seen[1] == [(0, 10)]
    assert seen[2] == []
    share(note(1), 3, 1024)
    assert seen[1] == [(0, 10), (0, 3)]


def test_much_is_not_put_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MOST", 10)
    done: Seen = []
    with together():
        for _ in range(3):
            share(lambda start, stop: done.append((start, stop)), 6, 2)
        assert done == [(0, 6), (0, 6)]
    assert done == [(0, 6)] * 3


def test_what_failed_is_not_done_and_does_not_stay() -> None:
    done: Seen = []

    def failing() -> None:
        with together():
            share(lambda start, stop: done.append((start, stop)), 6, 2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    share(lambda start, stop: None, 6, 2)
    assert done == []


def test_threads_put_off_for_themselves() -> None:
    done: list[str] = []
    with together():
        share(lambda start, stop: done.append("here"), 6, 2)
        other = threading.Thread(target=share, args=(lambda start, stop: done.append("there"), 6, 2))
        other.start()
        other.join()
        assert done == ["there"]
    assert done == ["there", "here"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_of_a_fork_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    seen: Seen = []
    share(lambda start, stop: seen.append((start, stop)), 2 * SHARE, 1024)
    child = os.fork()
    if child == 0:  # an OpenMP of the parent would wait for threads that are not there
        mine: Seen = []
        share(lambda start, stop: mine.append((start, stop)), 2 * SHARE, 1024)
        os._exit(0 if sorted(mine) == sorted(seen) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
