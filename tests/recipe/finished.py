"""What tests of whole runs share: a recipe, what a run has kept, and progress that is interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from pluria.recipe.schema import Recipe
from recipe.tiny import recipe

ARMS = [
    {"method": "low_precision", "members": 3, "format": "int3", "refresh": False},
    {"method": "low_precision", "members": 2, "format": "int4", "refresh": True, "views": ["identity", "flip"]},
]


def asked(folder: Path, **changes: Any) -> Recipe:
    """Two arms with two seeds beside full precision: eleven members."""
    return recipe(folder, **{"arms": ARMS, "seeds": [0, 4], "controls": False, **changes})


def figures_of(out: Path) -> dict[str, Any]:
    return json.loads((out / "figures.json").read_text())


def kept(out: Path) -> dict[str, bytes]:
    """Outputs of every member, by file; seconds are left out."""
    return {
        str(file.relative_to(out)): b"".join(
            name.encode() + value.numpy().tobytes() for name, value in sorted(load_file(file).items())
        )
        for file in sorted(out.glob("predictions/**/*.safetensors"))
    }


def without_times(figures: dict[str, Any]) -> dict[str, Any]:
    """Figures without what no two runs share: seconds, date and command."""
    held = json.loads(json.dumps(figures))
    for arm in held["arms"]:
        del arm["cost"]["seconds"]
    return {name: value for name, value in held.items() if name not in ("date", "command")}


REFRESHED = "INT-4 stratified refreshed 2 views × 2"


def made(out: Path) -> int:
    """How many members are predicted on both parts of the rows."""
    assert len(kept(out)) % 2 == 0
    return len(kept(out)) // 2


class Stop:
    """Progress that is interrupted once so many members are done."""

    def __init__(self, after: int) -> None:
        self.after, self.told = after, []

    def __call__(self, what: str, done: float, total: float) -> None:
        self.told.append((what, done, total))
        if done == self.after and what != "figures":
            raise KeyboardInterrupt
