"""What a run says in plain words: what was gained at which cost, and which control does as well."""

from __future__ import annotations

from typing import Any

CLIPPED = 0.02
"""A share of weights at the end of their grid after feedback that is worth a warning."""

RISE = 0.01
"""A rise of the unperturbed network's NLL by refresh that is worth a warning."""


def headline(found: dict[str, Any]) -> str:
    """One sentence of gain, one of cost, one of the best control."""
    arms = {arm["name"]: arm for arm in found["arms"]}
    main, full = arms[found["main"]], arms[found["reference"]]
    rival, between = arms[found["rival"]["name"]], found["rival"]
    gap = main["difference"]["nll_scaled"]
    sure = "" if gap["low"] > 0 or gap["high"] < 0 else ", within the noise of the rows"
    gain = (
        f"{main['name']}: NLL {full['scores']['nll']:.3f} → {main['scores']['nll']:.3f}, after temperature "
        f"{full['scaled']['nll']:.3f} → {main['scaled']['nll']:.3f} ({_percent(gap['estimate'], full['scaled']['nll'])}"
        f"{sure}), error {full['scores']['error']:.2%} → {main['scores']['error']:.2%}"
    )
    price = f"NLL {rival['scaled']['nll']:.3f}, error {rival['scores']['error']:.2%}, {_forwards(rival)}"
    return (
        f"{gain}; {_paid(main, full)}. Of the controls, {rival['name']} with temperature, the best on the calibration "
        f"rows, {_verdict(between)}: {price}."
    )


def best_control(main: dict[str, Any], arms: list[dict[str, Any]]) -> dict[str, Any]:
    """The control with the smallest calibration NLL after temperature and no more work than the main arm.

    Work is counted in operations where they are known of all arms, for a forward of one network is not that of another.
    """
    work = "flops" if all(arm["cost"]["flops"] for arm in arms) else "forwards"
    controls = [arm for arm in arms if arm["control"] and arm["cost"][work] <= main["cost"][work]]
    return min(controls, key=lambda arm: arm["calibration_nll_scaled"])


def warnings(found: dict[str, Any]) -> list[str]:
    """What a reader must know before trusting the table."""
    lines = []
    for arm in found["arms"]:
        if arm["method"] == "full_precision" and arm["refresh"]:
            lines += _refreshed_alone(arm, found["arms"])
    for arm in found["arms"]:
        alike = arm["members"] > 1 and arm["diversity"]["mutual_information"] < 1e-9
        if alike and not arm["control"]:
            lines.append(
                f"{arm['name']}: the members give identical outputs, so it is one model at several times the cost"
            )
        if arm.get("temperature_clamped"):
            lines.append(f"{arm['name']}: the temperature ran to an end of its range; too few rows to fit it")
    for row in found["noise"]:
        if row["clipped"] > 0 and not row["compensated"]:
            lines.append(f"{row['name']}: {row['clipped']:.2%} of the weights clip, so rounding is biased there")
    for arm in found["arms"]:
        if (share := arm["cost"]["clipped"]) > CLIPPED:
            lines.append(f"{arm['name']}: {share:.1%} of the weights clip after feedback, so rounding is biased there")
    return lines


def _paid(main: dict[str, Any], full: dict[str, Any]) -> str:
    """Forwards and bits; of several networks their work and bytes, for they have no weights in common."""
    sizes = [main["cost"][name] for name in ("bits_planes", "bits_members")]
    if len(main["networks"]) == 1:
        planes, members = (size / main["cost"]["parameters"] for size in sizes)
        # Codes after feedback have no planes, and a single member gains nothing by them.
        shared = sizes[0] < sizes[1]
        held = f"{planes:.1f} bits per weight as bit planes ({members:.1f} member by member)"
        return (
            f"for {_forwards(main)} per example instead of 1, and "
            f"{held if shared else f'{members:.1f} bits per weight, member by member'}"
        )
    one = full["cost"]
    times = f" ({main['cost']['flops'] / one['flops']:.1f} times the work of one)" if one["flops"] else ""
    held = f"{min(sizes) / 8e6:.2f} MB against {one['bits_members'] / 8e6:.2f} MB"
    return f"for {_forwards(main)} per example{times}, and {held}"


def _refreshed_alone(arm: dict[str, Any], arms: list[dict[str, Any]]) -> list[str]:
    """A warning where refresh of the unperturbed network does harm."""
    alike = ("method", "networks", "members", "views")
    plain = next((a for a in arms if not a["refresh"] and all(a[k] == arm[k] for k in alike)), arm)
    rise = arm["scores"]["nll"] - plain["scores"]["nll"]
    if rise <= RISE:
        return []
    return [f"refresh alone raises the NLL of {plain['name']} by {rise:.3f}: the inputs do not fit it"]


def _verdict(between: dict[str, Any]) -> str:
    """What the paired interval of main minus control allows to say."""
    if between["low"] > 0:
        return "does better"
    return "stays behind" if between["high"] < 0 else "cannot be told apart on these rows"


def _forwards(arm: dict[str, Any]) -> str:
    count = arm["cost"]["forwards"]
    return "one forward" if count == 1 else f"{count} forwards"


def _percent(difference: float, base: float) -> str:
    """The difference in percent, or as it is where there is nothing to hold it against."""
    return (f"{100 * difference / base:+.1f} %" if base > 0 else f"{difference:+.3f}").replace("-", "−")
