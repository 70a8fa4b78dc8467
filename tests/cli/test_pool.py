"""A fitted pool in a file: `pluria predict` uses it, another, or none; what does not fit is refused before the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cli.conftest import Pluria
from pluria.pool import (
    Cascade,
    Chain,
    Fusion,
    LogLinear,
    MemberTemperatures,
    Temperature,
    VectorScaling,
    mean_logit,
    to_dict,
)
from pluria.store import load_all, save

PREDICT = ("predict", "net.pluria", "--trust", "--data", "rows.npz", "--out", "p.safetensors")


def hold(pool: Mapping[str, Any]) -> None:
    """Put a pool into the file."""
    held = load_all("net.pluria")
    save("net.pluria", held.ensembles, about={**held.about, "pool": pool})


def test_the_pool_of_the_file_is_used_bit_for_bit(drawn: Path, pluria: Pluria) -> None:
    pool = Chain((MemberTemperatures((1 / 3, 1.0, 2.0, 3.0), (False,) * 4), LogLinear((0.1, 0.2, 1 / 3, 0.4))))
    hold(to_dict(pool))
    done = pluria(*PREDICT)
    assert done.code == 0, done.err
    assert "and the pooled answers" in done.out
    held = load_file("p.safetensors")
    assert torch.equal(held["pooled"], pool(held["outputs"]))
    told = pluria("score", "p.safetensors")
    assert told.code == 0
    found = json.loads(pluria("score", "p.safetensors", "--json").out)
    assert f"temperature {found['temperature']:.3f} behind {found['pool']}, fitted on" in told.out
    shown = pluria("inspect", "net.pluria")
    assert "chain (fitted)" in shown.out
    assert "0.333" not in shown.out
    assert "exponents" in pluria("inspect", "net.pluria", "--json").out


def test_a_cascade_is_explained(drawn: Path, pluria: Pluria) -> None:
    rule = Cascade(((0,), (1, 2, 3)), ((0.25, None),), 3, (1, 1, 1, 1), reached=(1.0, 0.5))
    held = to_dict(Chain((rule, Temperature(2.0))))
    hold(held)
    assert rule.explain() in pluria("inspect", "net.pluria").out
    held["chain"]["steps"][0]["cascade"]["windows"] = [[0.9, 0.1]]
    hold(held)
    assert "the pool cannot be used: this is no cascade pool: a window is" in pluria("inspect", "net.pluria").out


def test_the_pool_is_overridden_or_switched_off(drawn: Path, pluria: Pluria) -> None:
    hold(to_dict(LogLinear((0.1, 0.2, 1 / 3, 0.4))))
    assert pluria(*PREDICT, "--pool", "mean_logit").code == 0
    held = load_file("p.safetensors")
    assert torch.equal(held["pooled"], mean_logit(held["outputs"], held["weights"]))
    assert pluria(*PREDICT, "--pool", "off").code == 0
    assert "pooled" not in load_file("p.safetensors")


def test_a_name_in_the_file_is_not_run(drawn: Path, pluria: Pluria) -> None:
    assert load_all("net.pluria").about["pool"] == "mean_probability"
    assert pluria(*PREDICT).code == 0
    assert "pooled" not in load_file("p.safetensors")


@pytest.mark.parametrize(
    ("pool", "said"),
    [
        (to_dict(LogLinear((1.0, 1.0))), "fitted on 2 members, and here are 4"),
        (to_dict(Chain(("mean_logit", VectorScaling((1.0,) * 7, (0.0,) * 7)))), "fitted on 7 classes"),
        (to_dict(Fusion(4, ((((0.0, 0.0),) * 8, (0.0, 0.0)),), (0.0,) * 8, (1.0,) * 8)), "2 features of each member"),
        (to_dict(Temperature(2.0)), "no pool by itself"),
        ({"made_up": {}}, "'made_up' is no kind of pool"),
        ({"temperature": {"value": -1.0, "clamped": False}}, "is no temperature pool"),
        ({}, "one kind with its fields"),
    ],
)
def test_a_pool_that_does_not_fit_is_refused_before_the_run(
    drawn: Path, pluria: Pluria, pool: Mapping[str, Any], said: str
) -> None:
    hold(pool)
    refused = pluria(*PREDICT)
    assert refused.code != 0
    assert said in refused.err
    assert "--pool off" in refused.err
    assert not Path("p.safetensors").exists()
    assert pluria(*PREDICT, "--pool", "off").code == 0


def test_a_name_that_is_no_pool(drawn: Path, pluria: Pluria) -> None:
    refused = pluria(*PREDICT, "--pool", "best")
    assert refused.code == 2
    assert "--pool is off or one of" in refused.err
    refused = pluria(*PREDICT, "--pool", "mean_gaussian")
    assert refused.code == 2
    assert "mean and variance" in refused.err


def test_a_cascade_of_the_file_asks_no_more_than_it_says(drawn: Path, pluria: Pluria) -> None:
    assert pluria(*PREDICT).code == 0
    full = load_file("p.safetensors")
    stages, costs = ((2,), (0, 1), (3,)), (1, 1, 1, 2)
    scores = [
        Cascade(stages, (None, None), 3, costs).scored(i, full["outputs"]).quantile(0.3 + 0.4 * i).item()
        for i in (0, 1)
    ]
    rule = Cascade(stages, ((scores[0], None), (None, scores[1])), 3, costs, unit="seconds")
    chain = Chain((Chain((rule,)), Temperature(1.5)))
    hold(to_dict(chain))
    done = pluria(*PREDICT)
    assert done.code == 0, done.err
    held = load_file("p.safetensors")
    assert torch.equal(held["asked"], rule.asked(full["outputs"], full["weights"]))
    assert 0 < int(held["asked"][3].sum()) < int(held["asked"][0].sum()) < len(held["targets"])
    assert bool(held["outputs"].isnan().all(-1).eq(~held["asked"]).all())
    torch.testing.assert_close(held["pooled"], chain(full["outputs"], full["weights"]))
    spent = rule.spent(held["asked"])
    assert f"{spent.members:.2f} members for each example, {spent.share:.1%} of the seconds of asking all" in done.out
    scored = pluria("score", "p.safetensors")
    assert scored.code == 0, scored.err
    assert "were asked for each example" in scored.out
    assert pluria(*PREDICT, "--pool", "off").code == 0
    assert torch.equal(load_file("p.safetensors")["outputs"], full["outputs"])


def test_a_cascade_for_others_is_refused(drawn: Path, pluria: Pluria) -> None:
    for rule, said in (
        (Cascade(((0,), (1,)), (None,), 3, (1, 1)), "fitted on 2 members, and here are 4"),
        (Cascade(((0, 1, 2, 3),), (), 7, (1,) * 4), "fitted on 7 classes, and here are 3"),
    ):
        hold(to_dict(rule))
        refused = pluria(*PREDICT)
        assert refused.code != 0
        assert said in refused.err
        assert not Path("p.safetensors").exists()
