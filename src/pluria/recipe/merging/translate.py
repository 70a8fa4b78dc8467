"""mergekit's methods in Pluria's words: which method, which options, and what becomes of the models' weights.

mean   weights are the models' mixing weights, and `lambda` the scale of what is merged; without `normalize` the
       weighted sum of those that have the sign is not divided, and the weights' own sum is part of the scale
sum    lambda w_k, divided by the sum of the w_k with `normalize`, is the scale of model k's task vector
none   the method reads no weights
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

PER_MODEL = ("weight", "density", "gamma", "epsilon")
"""Parameters that mergekit reads for each model."""

OURS = {"density": "density", "gamma": "gamma", "epsilon": "epsilon", "select_topk": "select", "t": "t"}
DEFAULTS = {"density": 1.0, "gamma": 0.01, "epsilon": 0.15, "select_topk": 1.0}
IGNORED = ("int8_mask",)
"""Parameters that change how mergekit computes, but not what."""


@dataclass(frozen=True)
class Form:
    """A method of Pluria, how weights are read, whether they are normalised, the parameters, and what is fixed."""

    method: str
    weights: Literal["mean", "sum", "none"]
    normalize: bool = True
    parameters: tuple[str, ...] = ()
    fixed: Mapping[str, Any] = field(default_factory=dict)

    @property
    def known(self) -> tuple[str, ...]:
        """Every parameter that is read."""
        more = () if self.weights == "none" else ("weight", "normalize")
        return (*more, *(("lambda",) if self.method not in ("linear", "model_stock", "sce", "slerp") else ()),
                *self.parameters, *IGNORED)  # fmt: skip


THEIRS = {"spec": "mergekit"}
FORMS: dict[str, Form] = {
    "linear": Form("linear", "mean"),
    "slerp": Form("slerp", "none", parameters=("t",)),
    "task_arithmetic": Form("task_arithmetic", "sum", False),
    "ties": Form("ties", "mean", True, ("density",), THEIRS),
    "dare_linear": Form("dare", "sum", False, ("density",), THEIRS),
    "dare_ties": Form("dare", "mean", False, ("density",), {**THEIRS, "elect": True}),
    "breadcrumbs": Form("breadcrumbs", "sum", False, ("density", "gamma")),
    "breadcrumbs_ties": Form("breadcrumbs", "mean", False, ("density", "gamma"), {"elect": True}),
    "della": Form("della", "mean", True, ("density", "epsilon"), THEIRS),
    "della_linear": Form("della", "sum", False, ("density", "epsilon"), {**THEIRS, "elect": False}),
    "model_stock": Form("model_stock", "none", fixed={"clamp": False}),
    "sce": Form("sce", "none", parameters=("select_topk",), fixed=THEIRS),
}


def translated(
    name: str, each: Mapping[str, Sequence[Any]], general: Mapping[str, Any]
) -> tuple[list[float] | None, dict[str, Any]]:
    """Mixing weights, None for equal ones, and options, for the values of parameters at one tensor.

    each      a value for each model, None where nothing is said
    general   values of those that are not the models' own

    Raises ValueError for values that are no numbers, or ask for what Pluria does not do.
    """
    form = FORMS[name]
    weights = [_number("weight", value, 1.0) for value in each["weight"]]
    options: dict[str, Any] = dict(form.fixed)
    for parameter in form.parameters:
        options[OURS[parameter]] = _own(parameter, each.get(parameter, [general.get(parameter)]))
    scale = _number("lambda", general.get("lambda"), 1.0)
    normalize = _flag("normalize", general.get("normalize"), form.normalize)
    if form.weights == "none":
        return None, options
    if form.weights == "sum":
        total = math.fsum(weights) if normalize else 1.0
        if total == 0:
            raise ValueError(f"{name}: weights that sum to zero cannot be normalised; got {weights}")
        return None, {**options, "scale": [scale * weight / total for weight in weights]}
    if form.method != "linear":
        undivided = {"divided": False, "scale": scale * math.fsum(weights)}
        return weights, {**options, **({"scale": scale} if normalize else undivided)}
    if not normalize and abs(math.fsum(weights) - 1) > 1e-9:
        raise ValueError(
            f"{name}: `normalize: false` is read only where weights sum to one; got {weights}. Write `normalize: true`"
        )
    return weights, options


def _own(parameter: str, values: Sequence[Any]) -> float | list[float]:
    """The one value that all models have, or of a density the value of each."""
    found = [_number(parameter, value, DEFAULTS.get(parameter)) for value in values]
    if len(set(found)) == 1:
        return found[0]
    if parameter != "density":
        raise ValueError(f"{parameter}: one number for all models is read; got {found}")
    return found


def _number(parameter: str, value: Any, default: float | None) -> float:
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{parameter} is a number; got {value!r}")
    return float(value)


def _flag(parameter: str, value: Any, default: bool) -> bool:
    if value is None:
        return default
    if not isinstance(value, bool | int | float) or value not in (0, 1):
        raise ValueError(f"{parameter} is true or false; got {value!r}")
    return bool(value)
