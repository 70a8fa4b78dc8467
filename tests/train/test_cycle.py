"""Cycles repeat, have the published values, and end where members are taken."""

from __future__ import annotations

import math

import pytest
import torch

from pluria.train import Cycle, cycles


def test_a_cosine_is_the_papers() -> None:
    # alpha(t) = a0 / 2 (cos(pi mod(t - 1, ceil(T / M)) / ceil(T / M)) + 1), t from 1
    cycle, length = cycles(52, 4), 13
    for t in range(1, 53):
        assert cycle.share(t - 1) == pytest.approx(0.5 * (math.cos(math.pi * ((t - 1) % length) / length) + 1))
    assert [t for t in range(1, 53) if cycle.ends(t)] == [13, 26, 39, 52]
    assert cycle.share(12) < 0.02
    assert cycle.share(13) == 1


@pytest.mark.parametrize(("steps", "count"), [(50, 4), (9, 4), (7, 7), (8, 7), (2000, 6)])
def test_cycles_that_do_not_divide_a_run_lose_no_member(steps: int, count: int) -> None:
    cycle = cycles(steps, count)
    ends = [step for step in range(1, steps + 1) if cycle.ends(step)]
    assert ends == [-(-steps * number // count) for number in range(1, count + 1)]
    # Each member is taken where the rate is lowest, and the step after it is the first of a cycle.
    shares = [cycle.share(taken) for taken in range(steps)]
    assert all(shares[end - 1] == min(shares[start:end]) for start, end in zip([0, *ends], ends, strict=False))
    assert all(shares[start] == max(shares[start:end]) for start, end in zip([0, *ends], ends, strict=False))
    last = [step for step in range(1, steps + 1) if cycle.samples(step, share=1 / steps)]
    assert last == ends


def test_a_triangle_is_the_papers_and_lowest_where_it_is_collected() -> None:
    high, low, c = 0.05, 5e-4, 8
    cycle = Cycle(c, shape="triangle", low=low / high)
    for i in range(1, 33):
        u = ((i - 1) % c + 1) / c
        wanted = (1 - 2 * u) * high + 2 * u * low if u <= 0.5 else (2 - 2 * u) * low + (2 * u - 1) * high
        assert high * cycle.share(i - 1) == pytest.approx(wanted)
        assert cycle.ends(i) == (wanted == pytest.approx(low))
    with pytest.raises(ValueError, match="even number of steps; got 7"):
        Cycle(7, shape="triangle")


def test_the_scheduler_takes_each_step_at_its_share() -> None:
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=0.2)
    cycle = Cycle(3)
    schedule = cycle.scheduler(optimizer)
    for taken in range(7):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2 * cycle.share(taken))
        optimizer.step()
        schedule.step()


def test_sampling_is_at_the_end_of_each_cycle() -> None:
    cycle = Cycle(10)
    assert [s for s in range(1, 21) if cycle.samples(s, share=0.4)] == [7, 8, 9, 10, 17, 18, 19, 20]
    assert [s for s in range(1, 21) if cycle.samples(s, share=0.4, every=3)] == [7, 10, 17, 20]


@pytest.mark.parametrize("count", [0, 11])
def test_a_run_without_a_cycle_and_more_cycles_than_steps(count: int) -> None:
    with pytest.raises(ValueError, match=f"10 steps has 1 to 10 cycles; got {count}"):
        cycles(10, count)


def test_bad_cycles() -> None:
    for bad in (0, math.nan, math.inf):
        with pytest.raises(ValueError, match="1 step or more"):
            Cycle(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'cosine' or a 'triangle'"):
        Cycle(4, shape="saw")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a share of the highest"):
        Cycle(4, low=2)
