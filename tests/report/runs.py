"""A run of a second or two, and what tests change in its figures."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from pluria.recipe.run import run
from recipe.tiny import recipe, write_all, write_data

HOSTILE = '<script>alert("x")</script> & [bold]|$a_1$ ' + "long " * 12


def tiny_run(folder: Path) -> dict[str, Any]:
    """Figures of a small network on 60 tiny pictures: two number systems, a view, two seeds."""
    write_all(folder)
    write_data(folder / "data.npz", rows=120)
    arms = [{"method": "low_precision", "members": 4, "each": {"format": ["int4", "int3"]}}]
    made = recipe(folder, title="A tiny network", arms=arms, views=["left"], seeds=[0, 1])
    found = run(made, folder / "run", command="pluria run tiny.yaml")
    return dict(json.loads(json.dumps(found)))


def renamed(figures: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """The same figures with one arm under another name."""
    found = copy.deepcopy(figures)
    for arm in found["arms"]:
        arm["name"] = new if arm["name"] == old else arm["name"]
    found["main"] = new if found["main"] == old else found["main"]
    found["equal_bits"] = {new if name == old else name: best for name, best in found["equal_bits"].items()}
    return found


def hostile(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures whose every text tries to be markup, and whose picture lies elsewhere."""
    found = renamed(figures, figures["main"], HOSTILE)
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
