"""What a candidate is worth, against a computation of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pluria.pool import fit_temperature, mean_logit
from pluria.recipe.outputs import Outputs
from pluria.score import nll
from pluria.search.judge import judged, sized
from pluria.search.members import sizes
from pluria.search.run import planned
from pluria.search.spec import read_search
from search.tiny import pictures


class Made:
    """Members with made-up outputs in place of kept ones."""

    def __init__(self, sources: Any) -> None:
        self.sources = sources

    def outputs(self, job: Any, members: int, look: int) -> tuple[Outputs, Outputs]:
        draw = torch.Generator().manual_seed(look)
        every = [(torch.randn(4, rows, 3, generator=draw), torch.arange(rows) % 3) for rows in (60, 40)]
        return tuple(Outputs.of(logits[:members], y) for logits, y in every)  # type: ignore[return-value]


def test_each_half_is_judged_by_what_the_other_fits(tmp_path: Path) -> None:
    recipe, budget, _ = read_search(pictures(tmp_path))
    plan = planned(recipe, budget)
    job = next(job for job in plan.kinds if job.arm.method == "low_precision")
    made = Made(plan.sources)
    found = judged(made, job, 0, ["mean_logit"], None)  # type: ignore[arg-type]
    for size in sizes(4):
        one, other = made.outputs(job, size, 0)
        each = []
        for fit, judge in ((one, other), (other, one)):
            temperature = fit_temperature(mean_logit(fit.logits.double()), fit.y)
            each.append(float(nll(temperature(mean_logit(judge.logits.double())), judge.y).mean()))
        (scaled,) = [c for c in found if c.job.arm.members == size and c.scaled]
        assert scaled.loss == pytest.approx(sum(each) / 2, abs=1e-9)
        (raw,) = [c for c in found if c.job.arm.members == size and not c.scaled]
        plain = [float(nll(half.pooled(), half.y).mean()) for half in (one, other)]
        assert raw.loss == pytest.approx(sum(plain) / 2, abs=1e-12)
    assert [c.bits for c in found] == sorted(c.bits for c in found)
    few = judged(made, job, 0, ["mean_logit"], found[0].bits)  # type: ignore[arg-type]
    assert {c.job.arm.members for c in few} == {1}


def test_a_kind_keeps_its_name_at_another_size(tmp_path: Path) -> None:
    recipe, budget, _ = read_search(pictures(tmp_path))
    job = next(job for job in planned(recipe, budget).kinds if job.arm.method == "low_precision")
    assert job.name.endswith(" × 4")
    assert sized(job, 4) is job
    assert sized(job, 2).name == job.name.replace(" × 4", " × 2")
    assert sized(job, 1).name == job.name.removesuffix(" × 4")
    assert sized(job, 1).place("network") == job.place("network")
