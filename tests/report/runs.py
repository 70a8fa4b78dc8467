"""A run of a second or two, and what tests change in its figures."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pluria.recipe.run import run
from recipe.tiny import ARGUMENTS, CLASSES, recipe, write_network

HOSTILE = '<script>alert("x")</script> & [bold]|$a_1$ ' + "long " * 12


def tiny_run(folder: Path) -> dict[str, Any]:
    """Figures of a small network on 60 tiny pictures: two number systems, a view, two seeds, shifted, outside rows."""
    write_network(folder / "net.safetensors")
    arms = [{"method": "low_precision", "members": 4, "refresh": False, "each": {"format": ["int4", "int3"]}}]
    return _run(folder, title="A tiny network", arms=arms, views=["left"])


def several_run(folder: Path) -> dict[str, Any]:
    """Figures of two networks that differ in size, together with compensated rounding, and one of them alone."""
    networks = {}
    for name, width in (("narrow", 4), ("wide", 6)):
        made = write_network(folder / "net.safetensors", seed=width, width=width)
        torch.save(made.state_dict(), folder / f"{name}.pt")
        arguments = {**ARGUMENTS, "width": width}
        networks[name] = {"model": "small_cnn", "arguments": arguments, "checkpoint": str(folder / f"{name}.pt")}
    plain: dict[str, Any] = {"members": 2, "format": "int4", "refresh": False}
    arms = [{"method": "compensated", **plain}, {"method": "low_precision", "networks": ["wide"], **plain}]
    return _run(folder, network=None, networks=networks, arms=arms)


def _run(folder: Path, **changes: Any) -> dict[str, Any]:
    """A run on pictures of whole bytes, as changes of brightness want them."""
    draw = np.random.default_rng(0)
    y = np.arange(120) % CLASSES
    x = draw.integers(0, 160, (120, 1, 4, 4))
    x[np.arange(120), 0, y, y] += 80
    np.savez(folder / "data.npz", x=x.astype("uint8"), y=y)
    np.savez(folder / "other.npz", x=draw.integers(60, 255, (20, 1, 4, 4)).astype("uint8"), y=y[:20])
    outside = {"other": {"reader": "arrays", "arguments": {"path": str(folder / "other.npz")}}}
    shifted = {"dark": {"brightness": -0.3}, "noisy": {"noise": 0.1}}
    made = recipe(folder, shifted=shifted, shifted_rows=30, outside=outside, seeds=[0, 1], **changes)
    found = run(made, folder / "run", command="pluria run tiny.yaml")
    return dict(json.loads(json.dumps(found)))


def renamed(figures: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """The same figures with one arm under another name."""
    found = copy.deepcopy(figures)
    for arm in found["arms"]:
        arm["name"] = new if arm["name"] == old else arm["name"]
    found |= {name: new for name in ("main", "reference") if found[name] == old}
    found["equal_bits"] = {new if name == old else name: best for name, best in found["equal_bits"].items()}
    return found


def hostile(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures whose every text tries to be markup, and whose picture lies elsewhere."""
    found = renamed(renamed(figures, figures["main"], HOSTILE), figures["reference"], f"full {HOSTILE}")
    for arm in found["arms"]:
        for part in (arm, arm["spread"]):
            for name in {"shifted", "outside"} & set(part):
                part[name] = {f"{HOSTILE}{i}": one for i, one in enumerate(part[name].values())}
    found |= {"title": HOSTILE, "headline": HOSTILE, "command": HOSTILE, "date": HOSTILE}
    found |= {"warnings": [HOSTILE], "notes": [HOSTILE], "left_alone": [HOSTILE]}
    found["rows"]["name"] = HOSTILE
    found["noise"][0]["name"] = HOSTILE
    found["environment"]["processor"] = HOSTILE
    found["recipe"]["title"] = HOSTILE
    found["disagreed"][0] |= {"label": HOSTILE, "answer": HOSTILE, "votes": [[HOSTILE, 4]]}
    found["disagreed"][0]["picture"] = "https://example.com/picture.png"
    return found


def alone(figures: dict[str, Any]) -> dict[str, Any]:
    """Full precision and one single drawn model, one seed, and nothing that a run may lack."""
    found = copy.deepcopy(figures)
    singles = [arm for arm in found["arms"] if arm["members"] == 1][:2]
    singles[1] |= {"control": False}
    for arm in singles:
        arm |= {"joint": {}, "shifted": {}, "outside": {}}
    for name in (
        "notes",
        "warnings",
        "noise",
        "left_alone",
        "disagreed",
        "equal_bits",
        "environment",
        "command",
        "date",
    ):
        del found[name]
    return found | {"arms": singles, "main": singles[1]["name"]}


def deep(figures: dict[str, Any], layers: int) -> dict[str, Any]:
    """The same figures with so many rounded tensors of long names."""
    found = copy.deepcopy(figures)
    one = found["noise"][0]
    found["noise"] = [{**one, "name": f"encoder.layers.{i}.attention.projection.weight"} for i in range(layers)]
    return found


def crowded(figures: dict[str, Any], arms: int) -> dict[str, Any]:
    """The same figures with so many more drawn arms."""
    found = copy.deepcopy(figures)
    one = next(arm for arm in found["arms"] if not arm["control"])
    found["arms"] += [{**copy.deepcopy(one), "name": f"arm {i} × 4"} for i in range(arms)]
    return found
