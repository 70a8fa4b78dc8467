"""The headline tells gain, noise and defeat apart, and warnings come where they are due."""

from __future__ import annotations

from typing import Any

import pytest

from pluria.recipe.headline import best_control, headline, warnings


def arm(name: str, *, nll: float, scaled: float, error: float, **changes: Any) -> dict[str, Any]:
    held = {
        "name": name,
        "control": True,
        "method": "full_precision",
        "networks": ["network"],
        "refresh": False,
        "views": ["identity"],
        "members": 1,
        "scores": {"nll": nll, "error": error},
        "scaled": {"nll": scaled},
        "calibration_nll_scaled": scaled,
        "diversity": {"mutual_information": 0.01},
        "cost": {
            "forwards": 1,
            "flops": 10,
            "bits_planes": 600,
            "bits_members": 600,
            "parameters": 100,
            "clipped": 0.0,
        },
        "difference": {"nll_scaled": {"estimate": 0.0, "low": 0.0, "high": 0.0}},
    }
    return {**held, **changes}


FULL = arm("full precision", nll=0.50, scaled=0.40, error=0.10)


def drawn(scaled: float, low: float, high: float, **changes: Any) -> dict[str, Any]:
    gap = {"estimate": scaled - 0.40, "low": low, "high": high}
    cost = {"forwards": 8, "flops": 80, "bits_planes": 1250, "bits_members": 4000, "parameters": 100, "clipped": 0.0}
    options = {
        "control": False,
        "method": "low_precision",
        "members": 8,
        "difference": {"nll_scaled": gap},
        "cost": cost,
        **changes,
    }
    return arm("INT-5 stratified × 8", nll=0.42, scaled=scaled, error=0.09, **options)


def found(
    *arms: dict[str, Any],
    noise: list[dict[str, Any]] | None = None,
    between: tuple[float, float] = (-0.06, -0.02),
) -> dict[str, Any]:
    main = next(one for one in arms if one["name"] == "INT-5 stratified × 8")
    rival = {"name": best_control(main, list(arms))["name"], "low": between[0], "high": between[1]}
    return {"arms": list(arms), "reference": FULL["name"], "main": main["name"], "rival": rival, "noise": noise or []}


def test_a_real_gain() -> None:
    said = headline(found(FULL, drawn(0.36, -0.06, -0.02)))
    assert said == (
        "INT-5 stratified × 8: NLL 0.500 → 0.420, after temperature 0.400 → 0.360 (−10.0 %), error 10.00% → 9.00%; "
        "for 8 forwards per example instead of 1, and 12.5 bits per weight as bit planes "
        "(40.0 member by member). Of the controls, full precision with temperature, the best on the calibration rows, "
        "stays behind: NLL 0.400, error 10.00%, one forward."
    )


@pytest.mark.parametrize(("low", "high"), [(-0.03, 0.01), (-0.03, 0.0), (0.0, 0.02)])
def test_a_gain_within_the_noise(low: float, high: float) -> None:
    assert "(−2.5 %, within the noise of the rows)" in headline(found(FULL, drawn(0.39, low, high)))


def test_a_loss_is_said_like_a_gain() -> None:
    said = headline(found(FULL, drawn(0.44, 0.01, 0.07), between=(0.01, 0.07)))
    assert "0.400 → 0.440 (+10.0 %), error" in said
    assert "full precision with temperature, the best on the calibration rows, does better: NLL 0.400" in said


@pytest.mark.parametrize(
    ("between", "verdict"),
    [
        ((0.01, 0.02), "does better"),
        ((-0.01, 0.02), "cannot be told apart on these rows"),
        ((0.0, 0.02), "cannot be told apart on these rows"),
        ((-0.02, -0.01), "stays behind"),
    ],
)
def test_the_best_control_is_named_with_its_price(between: tuple[float, float], verdict: str) -> None:
    cost = {"forwards": 2, "flops": 20, "bits_planes": 600, "bits_members": 600, "parameters": 100, "clipped": 0.0}
    flip = arm("full precision 2 views × 2", nll=0.41, scaled=0.35, error=0.08, members=2, cost=cost)
    said = headline(found(FULL, flip, drawn(0.36, -0.06, -0.02), between=between))
    named = "Of the controls, full precision 2 views × 2 with temperature, the best on the calibration rows"
    assert f"{named}, {verdict}" in said
    assert said.endswith("NLL 0.350, error 8.00%, 2 forwards.")


def test_the_rival_is_chosen_on_calibration_rows_and_costs_no_more() -> None:
    lucky = arm("INT-8 nearest", nll=0.3, scaled=0.2, error=0.05, calibration_nll_scaled=0.41)
    dear = arm("sixteen views", nll=0.3, scaled=0.2, error=0.05, cost={"forwards": 16, "flops": 160})
    main = drawn(0.36, -0.06, -0.02)
    assert best_control(main, [FULL, lucky, dear, main]) is FULL
    other = {**drawn(0.1, -0.1, -0.1), "name": "another arm"}
    assert best_control(main, [FULL, other, main]) is FULL


def test_one_forward_is_said_as_one() -> None:
    main = drawn(
        0.36,
        -0.06,
        -0.02,
        cost={"forwards": 1, "flops": 10, "bits_planes": 500, "bits_members": 500, "parameters": 100, "clipped": 0.0},
    )
    assert "for one forward per example instead of 1, and 5.0 bits per weight" in headline(found(FULL, main))


def test_a_perfect_network_has_no_percents() -> None:
    perfect = arm("full precision", nll=0.0, scaled=0.0, error=0.0)
    said = headline(
        found(perfect, drawn(0.0, 0.0, 0.0, difference={"nll_scaled": {"estimate": 0.0, "low": 0, "high": 0}}))
    )
    assert "0.000 → 0.000 (+0.000, within the noise of the rows)" in said


def test_no_warnings_without_reason() -> None:
    assert (
        warnings(found(FULL, drawn(0.36, -0.06, -0.02), noise=[{"name": "w", "clipped": 0.0, "compensated": False}]))
        == []
    )


@pytest.mark.parametrize(("nll", "warned"), [(0.511, True), (0.509, False), (0.40, False)])
def test_refresh_that_hurts_the_network_itself(nll: float, warned: bool) -> None:
    refreshed = arm("full precision refreshed", nll=nll, scaled=0.4, error=0.1, refresh=True)
    lines = warnings(found(FULL, refreshed, drawn(0.36, -0.06, -0.02)))
    assert any("refresh alone raises the NLL of full precision by 0.011" in line for line in lines) is warned
    assert len(lines) == warned


def test_members_that_are_all_the_same() -> None:
    lines = warnings(found(FULL, drawn(0.36, -0.06, -0.02, diversity={"mutual_information": 0.0})))
    assert lines == [
        "INT-5 stratified × 8: the members give identical outputs, so it is one model at several times the cost"
    ]
    control = arm("views", nll=0.4, scaled=0.4, error=0.1, members=2, diversity={"mutual_information": 0.0})
    assert warnings(found(FULL, control, drawn(0.36, -0.06, -0.02))) == []


def test_feedback_that_clips() -> None:
    cost = {"forwards": 8, "flops": 80, "bits_planes": 1250, "bits_members": 4000, "parameters": 100}
    few, many = (drawn(0.36, -0.06, -0.02, cost=cost | {"clipped": share}) for share in (0.019, 0.03))
    assert warnings(found(FULL, few)) == []
    (line,) = warnings(found(FULL, many))
    assert "3.0% of the weights clip after feedback" in line


def test_several_networks_pay_in_work_and_bytes() -> None:
    cost = {
        "forwards": 2,
        "flops": 45,
        "bits_planes": 8_000_000,
        "bits_members": 9e6,
        "parameters": 100,
        "clipped": 0.0,
    }
    said = headline(found(FULL, drawn(0.36, -0.06, -0.02, networks=["a", "b"], members=1, cost=cost)))
    assert "for 2 forwards per example (4.5 times the work of one), and 1.00 MB against 0.00 MB." in said


def test_the_best_control_does_no_more_work() -> None:
    large = arm("a large one", nll=0.3, scaled=0.3, error=0.1, cost={**FULL["cost"], "flops": 90})
    main = drawn(0.36, -0.06, -0.02)
    assert best_control(main, [FULL, large, main])["name"] == FULL["name"]
    small = {**large, "cost": {**large["cost"], "flops": 80}}
    assert best_control(main, [FULL, small, main])["name"] == "a large one"
    unknown = {**large, "cost": {**large["cost"], "flops": 0}}
    assert best_control(main, [FULL, unknown, main])["name"] == "a large one", "then forwards count"


def test_weights_that_clip() -> None:
    rows = [
        {"name": "a.weight", "clipped": 0.25, "compensated": False},
        {"name": "b.weight", "clipped": 0.0, "compensated": False},
    ]
    lines = warnings(found(FULL, drawn(0.36, -0.06, -0.02), noise=rows))
    assert lines == ["a.weight: 25.00% of the weights clip, so rounding is biased there"]


def test_a_temperature_that_ran_away() -> None:
    lines = warnings(found({**FULL, "temperature_clamped": True}, drawn(0.36, -0.06, -0.02)))
    assert lines == ["full precision: the temperature ran to an end of its range; too few rows to fit it"]


def test_codes_without_a_common_floor_are_not_priced_as_bit_planes() -> None:
    cost = {"forwards": 8, "flops": 80, "bits_planes": 4000, "bits_members": 4000, "parameters": 100, "clipped": 0.0}
    said = headline(found(FULL, drawn(0.36, -0.06, -0.02, cost=cost)))
    assert "for 8 forwards per example instead of 1, and 40.0 bits per weight, member by member. Of the" in said
