"""Which arms a run has: those asked for, and the controls that apply to the network and the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import nn

from pluria.core.errors import RecipeError
from pluria.recipe.controls import SINGLES
from pluria.recipe.named import arm_name, format_name, has_dropout
from pluria.recipe.plan import Job, draw, filled, jobs
from pluria.recipe.schema import ONLY, Arm
from pluria.recipe.source import Source
from pluria.zoo.networks import network
from recipe.tiny import ARGUMENTS, recipe

LOW = {"method": "low_precision", "members": 4, "format": "int4", "refresh": False}


def net(**changes: Any) -> nn.Module:
    return network("small_cnn", **{**ARGUMENTS, **changes})


def planned(
    arms: list[dict[str, Any]], model: nn.Module | None = None, *, images: bool = False, **changes: Any
) -> list[Job]:
    return jobs(recipe(Path(), arms=arms, **changes), {ONLY: Source(model or net())}, images=images)


def full(arm: Arm) -> Arm:
    return filled(arm, {ONLY: Source(net())})


def names(found: list[Job], *, control: bool, candidates: bool = False) -> list[str]:
    """Names of some of the jobs, each once, in order."""
    return list(dict.fromkeys(j.name for j in found if j.control is control and (candidates or not j.candidate)))


def test_controls_of_one_low_precision_arm() -> None:
    found = planned([LOW])
    assert names(found, control=True) == [
        "full precision",
        "INT-4 nearest",
        "INT-4 Gaussian of matched variance × 4",
        "INT-4 independent × 4",
    ]
    assert names(found, control=False) == ["INT-4 stratified × 4"]
    assert {job.name for job in found if job.candidate} == {
        f"{format_name(name)} nearest" for name in SINGLES if name != "int4"
    }


def test_controls_of_a_refreshed_arm() -> None:
    found = planned([{**LOW, "refresh": True}])
    assert "full precision refreshed" in names(found, control=True)
    assert "INT-4 nearest refreshed" in names(found, control=True)
    assert "full precision refreshed" not in names(planned([LOW]), control=True)


def test_controls_where_there_is_dropout() -> None:
    assert "MC dropout × 4" in names(planned([LOW], net(dropout=0.1)), control=True)
    assert "MC dropout × 4" not in names(planned([LOW]), control=True)


def test_controls_where_there_are_views() -> None:
    found = planned([LOW], views=["flip", "identity", "left", "right", "up"])
    assert names(found, control=True)[1:3] == ["full precision 2 views × 2", "full precision 4 views × 4"]
    sets = {job.arm.views for job in found if job.arm.method == "full_precision"}
    assert ("identity", "flip") in sets
    assert ("identity", "flip", "left", "right") in sets
    assert names(planned([LOW], views=["flip"]), control=True)[1] == "full precision 2 views × 2"
    assert "full precision 2 views × 2" not in names(planned([{**LOW, "members": 1}], views=["flip"]), control=True)
    assert "full precision 2 views × 2" not in names(planned([LOW], views=["identity"]), control=True)


def test_controls_of_several_formats_and_sizes() -> None:
    found = planned([{**LOW, "members": 3, "each": {"format": ["int5", "int3"]}}, LOW])
    assert names(found, control=True) == [
        "full precision",
        "INT-5 nearest",
        "INT-5 Gaussian of matched variance × 3",
        "INT-5 independent × 3",
        "INT-3 nearest",
        "INT-3 Gaussian of matched variance × 3",
        "INT-3 independent × 3",
        "INT-4 nearest",
        "INT-4 Gaussian of matched variance × 4",
        "INT-4 independent × 4",
    ]


def test_without_controls_only_full_precision_is_added() -> None:
    found = planned([LOW], net(dropout=0.1), controls=False, views=["flip"])
    assert [job.name for job in found] == ["full precision", "INT-4 stratified × 4"]


def test_single_models_follow_the_grid_of_the_arm() -> None:
    found = planned([{**LOW, "granularity": "tensor", "where": ["conv1.weight", "head.weight"]}])
    assert "INT-4 nearest granularity tensor where ['conv1.weight', 'head.weight']" in names(found, control=True)
    assert all(j.arm.options["where"] == ["conv1.weight", "head.weight"] for j in found if j.arm.method == "nearest")


def test_drawn_arms_repeat_for_every_seed_and_single_models_do_not() -> None:
    found = planned([LOW], net(dropout=0.1), seeds=[0, 5], views=["flip"])
    seeds = {name: [job.seed for job in found if job.name == name] for name in {job.name for job in found}}
    assert seeds["INT-4 stratified × 4"] == [0, 5]
    assert seeds["INT-4 Gaussian of matched variance × 4"] == [0, 5]
    assert seeds["MC dropout × 4"] == [0, 5]
    assert seeds["full precision"] == [0]
    assert seeds["INT-4 nearest"] == [0]
    assert seeds["full precision 2 views × 2"] == [0]


def test_an_arm_that_repeats_another_is_left_out() -> None:
    defaults = {"coupling": "stratified", "granularity": "channel", "refresh": False, "views": ["identity"]}
    found = planned([LOW, LOW, {**LOW, **defaults}, {**LOW, "format": "INT-4"}, {**LOW, "where": None}], seeds=[0, 0])
    assert [job.name for job in found if not job.control] == ["INT-4 stratified × 4"]
    assert len({job.place(ONLY) for job in found}) == len(found)


def test_the_default_format_has_a_name() -> None:
    found = planned([{"method": "low_precision", "refresh": False}])
    assert names(found, control=False) == ["INT-5 stratified × 8"]
    noise = ["INT-5 Gaussian of matched variance × 8", "INT-5 independent × 8"]
    assert names(found, control=True) == ["full precision", "INT-5 nearest", *noise]
    assert "INT-5 nearest" not in {job.name for job in found if job.candidate}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({**LOW, "views": ["identity", "flip"]}, {**LOW, "views": ["identity", "left"]}),
        ({**LOW, "where": ["conv1.*"]}, {**LOW, "where": ["!conv1.*"]}),
        ({"method": "isotropic", "std": 0.01, "refresh": False}, {"method": "isotropic", "std": 0.1, "refresh": False}),
        ({**LOW, "format": {"conv*": "int4", "*": "int5"}}, {**LOW, "format": {"*": "int5", "conv*": "int4"}}),
    ],
)
def test_arms_that_look_alike_are_all_kept(one: dict[str, Any], other: dict[str, Any]) -> None:
    found = [job for job in planned([one, other]) if not job.control]
    wanted = [full(Arm.model_validate(arm)) for arm in (one, other)]
    assert all(job.arm == arm for job, arm in zip(found, wanted, strict=True))
    assert len({job.name for job in found}) == 2
    assert len({job.place(ONLY) for job in found}) == 2


def test_names_say_what_differs_from_the_default() -> None:
    def name(**arm: Any) -> str:
        return arm_name(full(Arm.model_validate(arm)), several=False)

    assert name(**LOW) == "INT-4 stratified × 4"
    assert name(**LOW, coupling="independent", granularity=16) == "INT-4 independent granularity 16 × 4"
    assert name(method="nearest", format="fp8-e4m3") == "FP8-E4M3 nearest"
    assert name(method="nearest", format="int4-asymmetric") == "INT-4-ASYMMETRIC nearest"
    assert name(method="gaussian", scale=2.0, members=2) == "INT-5 Gaussian of matched variance scale 2.0 × 2"
    assert name(method="isotropic", std=0.5) == "isotropic std 0.5 × 8"
    assert name(method="full_precision", views=["identity", "flip"]) == "full precision 2 views × 2"
    assert name(method="low_precision", format={"*": "int4"}, refresh=True) == '{"*": "int4"} stratified refreshed × 8'


def test_a_single_model_has_one_member_or_one_for_each_view() -> None:
    assert full(Arm(method="nearest")).members == 1
    assert full(Arm(method="nearest", views=("identity", "flip"))).members == 2
    assert full(Arm(method="nearest", members=3)).members == 3
    assert full(Arm(method="low_precision")).members == 8


@pytest.mark.parametrize("arm", [{"method": "dropout", "members": 4}, {"method": "nearest"}])
def test_an_arm_that_is_a_control_is_shown_where_there_is_no_other(arm: dict[str, Any]) -> None:
    found = planned([arm], net(dropout=0.1))
    assert len(names(found, control=False)) == 1
    assert names(found, control=True)[0] == "full precision"


def test_a_single_model_beside_drawn_arms_is_a_control() -> None:
    found = planned([LOW, {"method": "nearest", "format": "int3"}, {"method": "nearest", "format": "nf4"}])
    assert names(found, control=False) == ["INT-4 stratified × 4"]
    assert {"INT-3 nearest", "NF4 nearest"} <= set(names(found, control=True))


def test_the_network_itself_is_nothing_to_compare() -> None:
    with pytest.raises(RecipeError, match="the arms ask for the network itself only"):
        planned([{"method": "full_precision"}])
    found = planned([{"method": "full_precision", "views": ["identity", "flip"]}])
    assert names(found, control=False) == ["full precision 2 views × 2"]


def test_arms_ask_for_what_the_network_has() -> None:
    with pytest.raises(RecipeError, match="asks for refresh, but the network has no batch norm"):
        planned([{**LOW, "refresh": True}], net(norm="none"))
    with pytest.raises(RecipeError, match="the network has no dropout layer with p > 0"):
        planned([{"method": "dropout"}])


@pytest.mark.parametrize(
    ("module", "has"),
    [(nn.Dropout(0.5), True), (nn.Dropout2d(0.1), True), (nn.Dropout(0.0), False), (nn.Identity(), False)],
)
def test_dropout_that_would_do_something(module: nn.Module, has: bool) -> None:
    assert has_dropout(nn.Sequential(nn.Sequential(module))) is has


def test_members_are_drawn_by_position() -> None:
    (job,) = [job for job in planned([LOW]) if not job.control]
    source = Source(net())
    _, some = draw(job, ONLY, source, [2, 0])
    _, every = draw(job, ONLY, source, [0, 1, 2, 3])
    assert some.members == (2, 0)
    assert every.members == (0, 1, 2, 3)
    assert (some.params(2)["head.weight"] == every.params(2)["head.weight"]).all()


def test_slugs_are_names_of_folders() -> None:
    found = planned([{**LOW, "where": ["../*", "conv*"]}, {**LOW, "format": {"../../x*": "int4", "*": "int3"}}])
    assert all(set(job.place(ONLY)) <= set("abcdefghijklmnopqrstuvwxyz0123456789-/") for job in found)
    assert all(job.place(ONLY).count("/") == 1 for job in found)
