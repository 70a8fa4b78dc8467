"""A merge described in mergekit's YAML, as a `Merge`; a key that is not read here is refused by name.

    merge_method  models: [{model, parameters}]  base_model  dtype  out_dtype  parameters

A parameter is a number, a list of numbers that is spread evenly over the layers and interpolated between them, or a
list of {filter, value}, of which the first whose filter is in the tensor's name counts. A model's own parameters come
before the general ones. The layer is the first number in a tensor's name; names without one, such as embeddings, a last
norm and a head, have the first value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pluria.core.errors import RecipeError
from pluria.recipe.merging.spec import Merge, Settings
from pluria.recipe.merging.translate import FORMS, PER_MODEL, translated
from pluria.recipe.plain import nearest_name, read_plain

KEYS = ("merge_method", "models", "base_model", "dtype", "out_dtype", "parameters")
MODEL_KEYS = ("model", "parameters")

AMONG = ("linear", "slerp")
"""Methods for which the base is a model like others."""

Parameters = Mapping[str, Any]


def read_mergekit(path: str | Path) -> Merge:
    """The merge that a YAML file describes; relative paths in it are relative to where the command runs.

    Raises RecipeError for keys, methods and values that are not read.
    """
    held = read_plain(path)
    try:
        return from_mergekit(held)
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from None


def from_mergekit(held: Mapping[str, Any]) -> Merge:
    """The merge that plain data in mergekit's form describe; ValueError where they do not."""
    _known(held, KEYS, "")
    method, base = held.get("merge_method"), held.get("base_model")
    if method not in FORMS:
        raise ValueError(f"merge_method {method!r} is not read{nearest_name(str(method), sorted(FORMS))}")
    general = _parameters(held.get("parameters"), FORMS[method].known, "")
    models = _models(held.get("models"), [name for name in FORMS[method].known if name in PER_MODEL])
    if method not in AMONG:  # a base that is listed among the models has no task vector
        models = [(name, own) for name, own in models if name != base]
    if method == "slerp":
        models = _from_base(models, base)
    if method == "linear" and base is not None and base not in [name for name, _ in models]:
        raise ValueError(
            f"linear has no base; list base_model {base!r} among the models, with a weight, or leave it out"
        )

    def settings(tensor: str, place: float) -> Settings:
        each = {p: [_at(own.get(p, general.get(p)), tensor, place) for _, own in models] for p in PER_MODEL}
        whole = {name: _at(value, tensor, place) for name, value in general.items() if name not in PER_MODEL}
        return translated(method, each, whole)

    settings("", 0.0)  # mistakes in the values are found before anything is opened
    return Merge(
        method=FORMS[method].method,
        models=tuple(name for name, _ in models),
        base=None if base is None or method in AMONG else str(base),
        dtype=held.get("out_dtype") or held.get("dtype"),
        varying=lambda tensors: _by_layer(tensors, settings),
        about={"mergekit": dict(held)},
    )


def _models(given: Any, known: Sequence[str]) -> list[tuple[str, Parameters]]:
    if not isinstance(given, list) or not given:
        raise ValueError("`models` lists the models, each with a `model` and its `parameters`")
    found = []
    for entry in given:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("model"), str):
            raise ValueError(f"models: an entry has a `model`, a path; got {entry!r}")
        _known(entry, MODEL_KEYS, "models: ")
        found.append((entry["model"], _parameters(entry.get("parameters"), known, f"{entry['model']}: ")))
    return found


def _from_base(models: list[tuple[str, Parameters]], base: Any) -> list[tuple[str, Parameters]]:
    """The two models of slerp: t goes from the base, which is one of them whether it is listed or not, to the other."""
    others = [model for model in models if model[0] != base]
    if base is None or len(others) != 1 or len(models) > 2:
        names = ", ".join(name for name, _ in models)
        raise ValueError(f"slerp goes from `base_model` to one other model; got base_model {base!r} and models {names}")
    return [next((model for model in models if model[0] == base), (str(base), {})), *others]


def _parameters(given: Any, known: Sequence[str], where: str) -> Parameters:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ValueError(f"{where}parameters are a mapping; got {given!r}")
    _known(given, known, f"{where}parameters: ")
    return given


def _known(given: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    if unknown := [str(key) for key in given if key not in keys]:
        raise ValueError(f"{where}the key {unknown[0]!r} is not read{nearest_name(unknown[0], list(keys))}")


def _at(setting: Any, tensor: str, place: float) -> Any:
    """The value of a parameter at a tensor, which is at `place` of the layers, from 0 to 1."""
    if not isinstance(setting, list):
        return setting
    if not setting:
        raise ValueError("a parameter that is a list is not empty")
    if all(isinstance(entry, Mapping) for entry in setting):
        for entry in setting:
            _known(entry, ("filter", "value"), "a filter: ")
            if entry.get("filter") in (None, "*") or str(entry["filter"]) in tensor:
                return _at(entry.get("value"), tensor, place)
        return None
    if not all(isinstance(entry, int | float) and not isinstance(entry, bool) for entry in setting):
        raise ValueError(f"a list is of numbers, or of filters with values; got {setting!r}")
    at = place * (len(setting) - 1)
    low = min(int(at), len(setting) - 1)
    high = min(low + 1, len(setting) - 1)
    return (1 - (at - low)) * setting[low] + (at - low) * setting[high]


def _by_layer(tensors: Sequence[str], settings: Callable[[str, float], Settings]) -> Callable[[str], Settings]:
    """The settings of each tensor of a model, by its layer."""
    last = max((layer for layer in map(_layer, tensors) if layer is not None), default=0)

    def of(tensor: str) -> Settings:
        layer = _layer(tensor)
        if layer is None:
            return settings(tensor, 0.0)
        return settings(tensor, layer / last if last else 1.0)

    return of


def _layer(tensor: str) -> int | None:
    found = re.search(r"(?:^|\.)(\d+)\.", tensor)
    return int(found[1]) if found else None
