"""The order of results, lost workers and errors, with workers that are no processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pluria.core.errors import EngineError
from pluria.predict import Ray, local
from pluria.predict.engine import engine, told
from pluria.predict.map import AHEAD, Answer, Lost, answer, over, packed_task
from predict import tasks


class Crew:
    """Workers that are done in the order that `pick` says, or lost where `loses` says so."""

    def __init__(
        self, count: int, *, pick: Callable[[list[int]], int] = min, loses: Callable[[int], bool] | None = None
    ):
        self.count, self.pick, self.loses = count, pick, loses or (lambda item: False)
        self.held: dict[int, int] = {}
        self.handed: list[int] = []
        self.closed = self.replaced = 0

    def hand(self, worker: int, item: int) -> None:
        assert worker not in self.held, "a busy worker was given a second item"
        self.held[worker] = item
        self.handed.append(item)

    def reports(self) -> list[tuple[int, Answer | Lost]]:
        worker = self.pick(list(self.held))
        item = self.held.pop(worker)
        return [(worker, Lost("killed") if self.loses(item) else answer(tasks.refuse_three, item))]

    def replace(self, worker: int) -> None:
        self.replaced += 1

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("pick", [min, max, lambda held: held[len(held) // 2]])
def test_results_come_in_the_order_of_the_items(pick: Callable[[list[int]], int]) -> None:
    crew = Crew(3, pick=pick)
    assert list(over(crew, [10, 20, 5, 7, 1, 0, 2])) == [10, 20, 5, 7, 1, 0, 2]
    assert crew.closed == 1


def test_results_do_not_pile_up_behind_a_slow_item() -> None:
    crew = Crew(2, pick=lambda held: max(held) if len(held) > 1 else held[0])
    assert list(over(crew, list(range(10, 30)))) == list(range(10, 30))
    stuck = Crew(2, pick=lambda held: next(w for w in held if stuck.held[w] != 10 or len(stuck.handed) >= 2 * AHEAD))
    next(over(stuck, list(range(10, 50))))
    assert len(stuck.handed) == 2 * AHEAD


def test_a_lost_worker_is_replaced_and_its_item_done_again() -> None:
    lost = [4, 4, 1]

    def loses(item: int) -> bool:
        return item in lost and (lost.remove(item) or True)

    crew = Crew(2, loses=loses)
    assert list(over(crew, [0, 1, 2, 4, 5])) == [0, 1, 2, 4, 5]
    assert crew.replaced == 3


def test_an_item_that_costs_too_many_workers_is_named() -> None:
    crew = Crew(2, loses=lambda item: item == 4)
    with pytest.raises(EngineError, match=r"3 workers were lost on the same item \(4\), the last one killed\. Where"):
        list(over(crew, [0, 1, 4, 5]))
    assert crew.closed == 1


def test_an_error_of_the_task_is_raised_here_with_its_trace() -> None:
    crew = Crew(2)
    with pytest.raises(ValueError, match="no 3") as caught:
        list(over(crew, [0, 3]))
    assert "in refuse_three" in caught.value.__notes__[0]
    assert crew.closed == 1


def test_an_error_that_cannot_be_sent_comes_as_its_words() -> None:
    found = answer(tasks.refuse_oddly, 1).error
    assert type(found) is RuntimeError
    assert str(found) == "Own: cannot be pickled: it takes two"


def test_workers_end_where_nobody_wants_more() -> None:
    crew = Crew(2)
    results = over(crew, [0, 1, 2])
    next(results)
    results.close()
    assert crew.closed == 1


def test_the_local_mapper_works_here_when_asked() -> None:
    assert list(local(tasks.square, [1, 2, 3])) == [1, 4, 9]
    assert next(local(tasks.refuse_three, [1, 3])) == 1


def test_a_task_that_cannot_be_sent_is_refused() -> None:
    with pytest.raises(TypeError, match=r"cannot be sent to another process .* lambdas"):
        packed_task(lambda x: x)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "spark"}, "one of local, processes, ray; got 'spark'"),
        ({"workers": 2}, "`local` is this process alone; for 2 workers take `processes`"),
        ({"name": "processes", "address": "a:1"}, "only the engine `ray` has an address"),
        ({"name": "processes", "workers": 0}, "one worker or more; got 0"),
    ],
)
def test_engines_that_there_are_not(given: dict[str, Any], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        engine(**given)


def test_engines_by_name() -> None:
    assert engine() is local
    assert told(local) == "local"
    assert told(engine("processes", workers=3, threads=1)) == "processes, 3 workers"
    assert told(Ray(1, address="10.0.0.1:6379")) == "ray, 1 worker"
    with pytest.raises(ValueError, match="workers and threads are one or more; got 0 and None"):
        Ray(0)
