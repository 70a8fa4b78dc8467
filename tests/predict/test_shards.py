"""Sums over members and shards are those of all outputs at once, on every engine the same bits, in little memory."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from grown import growth, needs_proc
from pluria.core.ensemble import Ensemble
from pluria.predict import Processes, gather, predict, summed
from pluria.sample import low_precision
from pluria.score import AMBIGUITY, ECE, NLL, Tally, member_sums, tally, tally_members

SCORES = (NLL, ECE, AMBIGUITY)
FINISH = partial(tally_members, SCORES)
Shard = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def drawn() -> tuple[nn.Module, Ensemble, list[Shard]]:
    """A network, seven members of unequal weights, and three shards of two batches each, of unequal sizes."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 4))
    made = low_precision(model, format="int3", members=7).reweight(torch.arange(1.0, 8.0))
    sizes = [(4, 3), (8, 1), (2, 2)]
    shards = [[(torch.randn(n, 5, generator=generator), torch.arange(n) % 4) for n in pair] for pair in sizes]
    return model, made, shards


def total(drawn: tuple[nn.Module, Ensemble, list[Shard]], **options: Any) -> Tally:
    return summed(*drawn, fold=member_sums, finish=FINISH, **options)


@pytest.mark.parametrize("at_once", [1, 3, 7, 100])
@pytest.mark.parametrize("options", [{}, {"block": 2}, {"block": 3, "backend": "vmap"}])
def test_figures_are_those_of_all_outputs(
    drawn: tuple[nn.Module, Ensemble, list[Shard]], at_once: int, options: dict[str, Any]
) -> None:
    model, made, shards = drawn
    found = total(drawn, at_once=at_once, **options)
    outputs, y = gather(predict(model, made, [batch for shard in shards for batch in shard]))
    pooled = member_sums(outputs, made.weights).mean_probs.log()
    wanted = tally(SCORES, pooled, y, outputs=outputs, weights=made.weights)
    assert found.count == wanted.count == 20
    assert found.figures() == pytest.approx(wanted.figures(), abs=1e-6 if "backend" in options else 1e-12)


@pytest.mark.parametrize("options", [{}, {"block": 2}, {"at_once": 3}])
def test_a_batch_without_examples_changes_nothing(
    drawn: tuple[nn.Module, Ensemble, list[Shard]], options: dict[str, Any]
) -> None:
    model, made, shards = drawn
    empty = (torch.ones(0, 5), torch.ones(0, dtype=torch.int64))
    found = total((model, made, [[empty, *shard] for shard in shards]), **options)
    assert found.count == 20
    assert found.figures() == total(drawn, **options).figures()


def test_processes_give_the_same_bits(drawn: tuple[nn.Module, Ensemble, list[Shard]]) -> None:
    one, other = total(drawn, at_once=2), total(drawn, at_once=2, mapper=Processes(2))
    assert one.sums.keys() == other.sums.keys()
    assert all(torch.equal(value, other.sums[name]) for name, value in one.sums.items())


def test_sums_are_added_in_the_order_of_members_and_shards(drawn: tuple[nn.Module, Ensemble, list[Shard]]) -> None:
    model, made, shards = drawn

    def backwards(task: Any, items: Any) -> Any:
        """A mapper whose last item is done first."""
        done = {item: task(item) for item in reversed(items)}
        yield from (done[item] for item in items)

    told: list[int] = []
    summed(
        model,
        made,
        shards,
        fold=member_sums,
        finish=lambda sums, y: told.append(len(y)) or FINISH(sums, y),
        mapper=backwards,
    )
    assert told == [4, 3, 8, 1, 2, 2]
    assert total(drawn, mapper=backwards).figures() == total(drawn).figures()


def test_bad_input(drawn: tuple[nn.Module, Ensemble, list[Shard]]) -> None:
    model, made, shards = drawn
    with pytest.raises(ValueError, match="got 0 shards, at_once=64"):
        total((model, made, []))
    with pytest.raises(ValueError, match="got 3 shards, at_once=0"):
        total(drawn, at_once=0)
    with pytest.raises(ValueError, match="there was no batch"):
        total((model, made, [[]]))
    with pytest.raises(TypeError, match="no iterator"):
        total((model, made, [iter(shards[0])]))  # type: ignore[list-item]


@needs_proc
def test_thousands_of_members_never_meet_in_one_memory() -> None:
    summed, gathered = growth("predict", "summed", "gathered")
    assert summed < 6e6
    assert gathered > 36e6, "the measurement sees outputs that are held"


@needs_proc
@pytest.mark.study
def test_ten_thousand_members_never_meet_in_one_memory() -> None:
    summed, gathered = growth("predict", "summed:10000", "gathered:10000")
    assert summed < 15e6
    assert gathered > 90e6, "the measurement sees outputs that are held"
