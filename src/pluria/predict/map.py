"""Mappers: one task over many items, the results in the order of the items, whoever computes them.

    local       in this process, one after the other
    Processes   processes of this machine (processes.py)
    Ray         actors on a Ray cluster (cluster.py)

Whoever adds results up as they come adds them in one order, so every engine gives the same bits. A task is a function
of its item alone; it is sent to a worker once, items and results one by one.
"""

from __future__ import annotations

import pickle
import traceback
from collections import Counter, deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from pluria.core.errors import EngineError

Item = TypeVar("Item")
Result = TypeVar("Result")
TRIES = 3
"""Workers that one item may cost: what kills them all is the item."""

AHEAD = 2
"""Items for each worker that may be done before their turn, so that results do not pile up behind a slow one."""


class Mapper(Protocol):
    """Results of `task` for each item, in the order of the items; closing the generator ends the workers."""

    def __call__(self, task: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result]: ...


def local(task: Callable[[Item], Result], items: Sequence[Item]) -> Generator[Result]:
    """The mapper that works in this process."""
    yield from map(task, items)


@dataclass(frozen=True)
class Answer:
    """What a worker has to say of an item: its result, or the error that it raised."""

    value: Any = None
    error: BaseException | None = None


@dataclass(frozen=True)
class Lost:
    """A worker that is gone, and how."""

    how: str


class Crew(Protocol):
    """Workers by number, each holding the task; one item at a time."""

    count: int

    def hand(self, worker: int, item: Any) -> None:
        """Give an idle worker an item."""
        ...

    def reports(self) -> list[tuple[int, Answer | Lost]]:
        """Wait until a busy worker is done or gone; one report for each of those."""
        ...

    def replace(self, worker: int) -> None:
        """A new worker in the place of one that is gone."""
        ...

    def close(self) -> None:
        """End all workers, busy ones too."""
        ...


def over(crew: Crew, items: Sequence[Any], *, tries: int = TRIES) -> Generator[Any]:
    """The crew's results in the order of the items.

    A worker that is lost is replaced and its item handed out again. Raises EngineError where an item has cost `tries`
    workers, and what the task itself raises. Ends the crew in any case.
    """
    waiting, done, busy = deque(range(len(items))), dict[int, Any](), dict[int, int]()
    costs, idle, turn = Counter[int](), list(reversed(range(crew.count))), 0
    try:
        while turn < len(items):
            while idle and waiting and waiting[0] < turn + AHEAD * crew.count:
                busy[worker := idle.pop()] = waiting.popleft()
                crew.hand(worker, items[busy[worker]])
            for worker, report in crew.reports():
                number = busy.pop(worker)
                if isinstance(report, Lost):
                    costs[number] += 1
                    _refuse_deadly(items[number], costs[number], tries, report.how)
                    crew.replace(worker)
                    waiting.appendleft(number)
                elif report.error is not None:
                    raise report.error
                else:
                    done[number] = report.value
                idle.append(worker)
            while turn in done:
                yield done.pop(turn)
                turn += 1
    finally:
        crew.close()


def answer(task: Callable[[Any], Any], item: Any) -> Answer:
    """The task's answer, where an error is an answer too; the trace of the worker goes with it as a note."""
    try:
        return Answer(task(item))
    except Exception as error:
        error.add_note(f"in a worker:\n{traceback.format_exc()}")
        return Answer(error=_sendable(error))


def packed_answer(task: Callable[[Any], Any], item: bytes) -> bytes:
    """The answer to a packed item as bytes; an item or a result that cannot be sent is an error of the task."""
    found = answer(lambda packed: task(pickle.loads(packed)), item)
    try:
        return pickle.dumps(found)
    except Exception as error:  # whatever the parts of a result raise
        return pickle.dumps(Answer(error=TypeError(f"the task's result cannot be sent to another process: {error}")))


def packed_task(task: Callable[[Any], Any]) -> bytes:
    """A task as bytes; TypeError for one that cannot be sent to another process."""
    try:
        return pickle.dumps(task)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise TypeError(
            f"the task cannot be sent to another process ({error}). Give a function of a module, or a dataclass with "
            "a __call__, whose parts can be pickled; lambdas and functions inside functions cannot"
        ) from None


def _refuse_deadly(item: Any, cost: int, tries: int, how: str) -> None:
    if cost >= tries:
        raise EngineError(
            f"{cost} workers were lost on the same item ({_short(item)}), the last one {how}. Where memory ran out, "
            "fewer workers or a smaller batch take less"
        )


def _sendable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # errors of others' code, with arguments of any kind
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _short(item: Any) -> str:
    text = str(item)
    return text if len(text) <= 80 else f"{text[:77]}..."
