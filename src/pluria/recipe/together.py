"""The joint score of several labels, with its control: uncertainty that members share is worth more than temperature.

joint   J of ten points from two anchors ("repeated") and of ten different points ("distinct"), the marginal score of
        the same draws, and what the pooled prediction scores where all its uncertainty is called epistemic

Members are tempered before the softmax, with the temperature of least pooled NLL on the calibration rows.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from pluria.pool import mean_probability
from pluria.recipe.outputs import Outputs
from pluria.score import all_epistemic, draw_points, joint, marginal, nll

TAU, DRAWS, SEED = 10, 2500, 0
FEWEST = 2 * TAU
LOWEST, HIGHEST, STEPS = -1.0, 2.5, 24
"""Ends of log T, and steps of the golden section: to about 1e-5."""


def together(calibration: Outputs, figures: Outputs) -> dict[str, float]:
    """Joint figures of one arm in nats for each label; none for dense outputs or fewer than twenty rows."""
    if figures.example is not None or len(figures.y) < FEWEST:
        return {}
    temperature = members_temperature(calibration)
    given: dict[str, Any] = {"weights": figures.weights, "temperature": temperature}
    found = {"temperature": temperature}
    for name, anchors in (("repeated", 2), ("distinct", None)):
        points = draw_points(len(figures.y), tau=TAU, anchors=anchors, draws=DRAWS, seed=SEED)
        found[name] = float(joint(figures.logits, figures.y, points, **given).mean())
        found[f"{name}_marginal"] = float(marginal(figures.logits, figures.y, points, **given).mean())
        found[f"{name}_all_epistemic"] = float(all_epistemic(figures.logits, figures.y, points, **given).mean())
    return {name: value for name, value in found.items() if math.isfinite(value)}


def members_temperature(rows: Outputs) -> float:
    """The T of least NLL of the members' mean probability, each member's logits divided by T: a golden section."""
    shrink = (math.sqrt(5) - 1) / 2
    low, high = LOWEST, HIGHEST
    left, right = high - shrink * (high - low), low + shrink * (high - low)
    one, two = _loss(rows, left), _loss(rows, right)
    for _ in range(STEPS):
        if one < two:
            high, right, two = right, left, one
            left = high - shrink * (high - low)
            one = _loss(rows, left)
        else:
            low, left, one = left, right, two
            right = low + shrink * (high - low)
            two = _loss(rows, right)
    return math.exp((low + high) / 2)


def _loss(rows: Outputs, log_temperature: float) -> float:
    tempered: Tensor = rows.logits.double() / math.exp(log_temperature)
    return float(nll(mean_probability(tempered, rows.weights), rows.y).mean())
