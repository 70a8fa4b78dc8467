"""The figures of a run: what is drawn, what is left out, and that inputs of every kind are survived."""

from __future__ import annotations

import math
from typing import Any
from xml.etree import ElementTree

import pytest

from pluria.report.budgets import against_bits, against_forwards
from pluria.report.growth import against_members
from pluria.report.ink import Plot, drawing
from pluria.report.plots import noise_plot, plots
from pluria.report.reliability import wilson
from pluria.report.series import best_single, drawn, kind
from report.runs import HOSTILE, alone, crowded, deep, hostile

ALL = ["nll-members", "ece-members", "reliability", "bits", "forwards", "diversity"]


def _texts(plot: Plot) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(plot.svg).iter("text")]


@pytest.fixture(scope="module")
def made(figures: dict[str, Any]) -> dict[str, Plot]:
    return {plot.name: plot for plot in plots(figures)}


@pytest.fixture(scope="module")
def made_of_several(several: dict[str, Any]) -> dict[str, Plot]:
    return {plot.name: plot for plot in plots(several)}


def test_all_six_in_order(made: dict[str, Plot]) -> None:
    assert list(made) == ALL


def test_legend_names_every_line(figures: dict[str, Any], made: dict[str, Plot]) -> None:
    labels = [entry.label for entry in made["nll-members"].legend]
    names = [arm["name"] for arm in figures["arms"] if not arm["control"]]
    single = best_single(figures)
    assert single is not None
    assert set(labels) == {*names, "full precision", f"best single control: {single['name']}"}


def test_controls_are_in_the_budget_figures(made: dict[str, Plot]) -> None:
    for name in ("bits", "forwards"):
        labels = [entry.label for entry in made[name].legend]
        assert "nearest rounding" in labels
        assert "full precision, several views" in labels
        assert "Gaussian of matched variance" in labels


def test_descriptions_hold_the_numbers(figures: dict[str, Any], made: dict[str, Plot]) -> None:
    main = next(arm for arm in figures["arms"] if arm["name"] == figures["main"])
    found = {name: ElementTree.fromstring(plot.svg).attrib["aria-label"] for name, plot in made.items()}
    assert f"{main['name']}: NLL {main['scaled']['nll']:.4f}" in found["bits"]
    assert f"ambiguity {main['diversity']['ambiguity']:.4f}" in found["diversity"]
    assert f"{main['curve'][-1]['nll_scaled']:.4f} at {main['members']}" in found["nll-members"]


def test_one_single_model_has_no_curves(figures: dict[str, Any]) -> None:
    assert [plot.name for plot in plots(alone(figures))] == ["reliability", "bits", "forwards"]
    assert noise_plot(alone(figures)) is None


def test_at_most_six_arms_have_colours(figures: dict[str, Any]) -> None:
    many = crowded(figures, 9)
    assert len(drawn(many)) == 6
    assert drawn(many)[0].arm["name"] == many["main"]
    with drawing():
        plot = against_members(many, "nll")
    assert plot is not None
    assert "5 more drawn arms are in the table." in plot.caption


@pytest.mark.parametrize("layers", [1, 2, 20, 21, 200])
def test_any_number_of_layers(figures: dict[str, Any], layers: int) -> None:
    plot = noise_plot(deep(figures, layers))
    assert plot is not None
    named = [text for text in _texts(plot) if text.startswith("encoder")]
    assert len(named) == (layers if layers <= 20 else 0)
    height = float(ElementTree.fromstring(plot.svg).attrib["viewBox"].split()[3])
    assert height <= 50 + 28 * 20


def test_a_control_far_off_is_named_and_does_not_flatten_the_rest(figures: dict[str, Any]) -> None:
    far = crowded(figures, 0)
    single = next(arm for arm in far["arms"] if arm["method"] == "nearest")
    single["scaled"]["nll"] = single["curve"][0]["nll_scaled"] = 77.0
    with drawing():
        found = [against_bits(far), against_forwards(far)]
    for plot in found:
        assert f"Above the edge: {single['name']} (77.00)" in plot.caption
        assert not any("70" in text for text in _texts(plot))


def test_a_perfect_network_is_drawn(figures: dict[str, Any]) -> None:
    perfect = crowded(figures, 0)
    for arm in perfect["arms"]:
        arm["scaled"]["nll"] = 0.0
        for point in arm["curve"]:
            point |= {key: 0.0 for key in point if key != "k"}
        arm["diversity"] = dict.fromkeys(arm["diversity"], 0.0)
    assert [plot.name for plot in plots(perfect)] == ALL


def test_kinds_of_controls(figures: dict[str, Any]) -> None:
    found = {arm["name"]: kind(arm) for arm in figures["arms"] if arm["control"]}
    assert found["full precision"] == "full_precision"
    assert found["full precision 2 views × 2"] == "views"
    assert kind({"method": "isotropic", "views": ["identity"]}) == "other"


def test_kinds_of_compensated_runs(several: dict[str, Any]) -> None:
    found = {arm["name"]: kind(arm) for arm in several["arms"]}
    assert found["INT-4 GPTQ of narrow + wide"] == "gptq"
    assert found["INT-4 stratified × 2 of narrow + wide"] == "low_precision"


def test_networks_that_differ_are_held_against_operations_and_bytes(made_of_several: dict[str, Plot]) -> None:
    found = made_of_several
    assert found["forwards"].title == "NLL against operations"
    assert "kFLOPs for each row" in _texts(found["forwards"])
    assert "counted in operations" in found["forwards"].caption
    assert "kB in all" in _texts(found["bits"])


def test_a_ring_marks_several_networks(made: dict[str, Plot], made_of_several: dict[str, Plot]) -> None:
    for given, wanted in ((made, 0), (made_of_several, 1)):
        for plot in given.values():
            rings = [entry for entry in plot.legend if entry.ringed]
            assert len(rings) == (wanted if plot.name in ("bits", "forwards") else 0)


def test_compensated_tensors_have_no_nearest_and_plain_ones_are_named(several: dict[str, Any]) -> None:
    main = next(arm["name"] for arm in several["arms"] if arm["method"] == "compensated")
    plainly, *rest = several["noise"]
    made = [{**row, "compensated": True, "nearest": None} for row in rest]
    plot = noise_plot({**several, "main": main, "noise": [plainly, *made]})
    assert plot is not None
    assert plot.caption.endswith(f"their inputs could not be captured: {plainly['name']}.")
    assert [entry.label for entry in plot.legend] == ["members' spread", "nearest rounding"]
    plot = noise_plot({**several, "main": main, "noise": made})
    assert plot is not None
    assert "captured" not in plot.caption
    assert len(plot.legend) == 1
    many = noise_plot({**several, "main": main, "noise": [plainly] * 30})
    assert many is not None
    assert "and 25 more" in many.caption


def test_wilson_solves_its_equation() -> None:
    for right, count in ((0.5, 10.0), (1.0, 1.0), (0.0, 7.0), (0.93, 400.0)):
        for end in wilson(right, count, z=2.0):
            assert math.isclose((end - right) ** 2, 4.0 * end * (1 - end) / count, abs_tol=1e-12)


def test_the_hostile_name_is_only_text(figures: dict[str, Any]) -> None:
    with drawing():
        plot = against_members(hostile(figures), "ece")
    assert plot is not None
    assert "<script" not in plot.svg
    assert any(entry.label == HOSTILE for entry in plot.legend)
