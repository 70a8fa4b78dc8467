"""A run folder: the recipe, the environment, predictions member by member, figures. Nothing is ever half written.

run.json  environment.json  predictions/<arm>/<member>.safetensors  figures.json  ensemble.pluria
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from pluria.core.errors import RecipeError
from pluria.recipe.schema import Recipe
from pluria.store.atomic import replacing

KEPT = "predictions/*/*.safetensors"
RESULTS = ("run.json", "figures.json", "ensemble.pluria")


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps what it has done."""

    path: Path

    def claim(self, recipe: Recipe, pinned: dict[str, Any], *, restart: bool) -> None:
        """Take the folder for this recipe; RecipeError where it holds another run, unless `restart` clears it.

        `pinned` is what the bits depend on besides the recipe: threads, versions, contents of the inputs.
        """
        state = {"recipe": recipe.model_dump(mode="json"), "pinned": pinned}
        if restart:
            self._clear()
        else:
            self.refuse_other(state)
        self.path.mkdir(parents=True, exist_ok=True)
        self.write("run.json", state)
        self.write("environment.json", environment())

    def refuse_other(self, state: dict[str, dict[str, Any]]) -> None:
        """Raise RecipeError where the folder holds a run that differs in one of the parts of `state`."""
        held = self.read("run.json")
        if not isinstance(held, dict | None):
            raise RecipeError(f"{self.path / 'run.json'} is not of a run. Give another folder, or --restart")
        if held is None and next(self.path.glob(KEPT), None) is not None:
            raise RecipeError(f"{self.path} holds predictions of an unknown run. Give another folder, or --restart")
        changed = [] if held is None else [k for part in state for k in _changed(held.get(part, {}), state[part])]
        if changed:
            raise RecipeError(
                f"{self.path} holds another run (different: {', '.join(changed)}). Give another folder, or --restart"
            )

    def _clear(self) -> None:
        """Remove what an earlier run has left, the claim first: what is left without one is of no known run."""
        for file in [self.path / name for name in RESULTS] + list(self.path.glob(KEPT)):
            file.unlink(missing_ok=True)

    def read(self, name: str) -> Any:
        """A JSON file, None where it does not exist; RecipeError where it cannot be read."""
        try:
            return json.loads((self.path / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, json.JSONDecodeError) as error:
            raise RecipeError(f"{self.path / name} cannot be read: {error}") from None

    def write(self, name: str, value: Any) -> None:
        """Write a JSON file whole or not at all."""
        _replace(self.path / name, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())

    def member(self, slug: str, position: int) -> Path:
        """File of one member's predictions."""
        return self.path / "predictions" / slug / f"{position:05d}.safetensors"

    def keep(self, slug: str, position: int, parts: dict[str, Tensor], seconds: float) -> None:
        """Keep one member's outputs on each part of the rows, with the seconds they took."""
        file = self.member(slug, position)
        file.parent.mkdir(parents=True, exist_ok=True)
        _replace(file, to_bytes({n: t.contiguous() for n, t in parts.items()}, {"seconds": repr(seconds)}))

    def kept(self, slug: str, position: int) -> bool:
        """Whether one member's predictions are there and whole."""
        try:
            with safe_open(self.member(slug, position), "pt"):
                return True
        except (OSError, SafetensorError):
            return False

    def outputs(self, slug: str, members: int, part: str) -> Tensor:
        """Outputs `[K, N, ..., C]` of an arm's members on one part of the rows."""
        rows = []
        for position in range(members):
            with safe_open(self.member(slug, position), "pt") as file:
                rows.append(file.get_tensor(part))
        return torch.stack(rows)

    def seconds(self, slug: str, members: int) -> float:
        """Seconds that predicting all of an arm's members took."""
        total = 0.0
        for position in range(members):
            with safe_open(self.member(slug, position), "pt") as file:
                total += float(file.metadata()["seconds"])
        return total


def environment() -> dict[str, Any]:
    """Machine and versions, without names of hosts or paths."""
    packages = ("pluria", "torch", "numpy", "numba", "safetensors")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "packages": {name: _version(name) for name in packages},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def digest(tensors: list[Tensor], *words: str) -> str:
    """A short hash of the contents of some tensors, and of some words."""
    state = hashlib.blake2b(repr(words).encode(), digest_size=8)
    for tensor in tensors:
        state.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        state.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return state.hexdigest()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def _changed(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    fresh = json.loads(json.dumps(new))
    return sorted(key for key in {*old, *fresh} if old.get(key) != fresh.get(key))


def _replace(file: Path, content: bytes) -> None:
    with replacing(file) as handle:
        handle.write(content)
