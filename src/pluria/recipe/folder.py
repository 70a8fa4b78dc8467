"""A run folder: the recipe, the environment, predictions member by member, figures. Nothing is ever half written.

run.json  environment.json  predictions/<network>/<arm>/<part>/<member>.safetensors  figures.json  ensemble.pluria

A member's predictions are named by all that they depend on, so a recipe may gain or lose arms, seeds and rows to look
at: what is kept stays right. What would change the bits of what is kept is pinned.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
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

KEPT = "predictions/**/*.safetensors"
CHOSEN = "backends.json"
RESULTS = ("run.json", CHOSEN, "figures.json", "ensemble.pluria")
WAYS = ("batch", "class_axis", "unlabelled_rows", "device", "dtype", "channels_last", "backend", "threads")
"""Keys of a recipe on which the bits of predictions depend; networks and rows are pinned by their contents."""


@dataclass(frozen=True)
class RunFolder:
    """Where one run keeps what it has done."""

    path: Path

    def claim(self, recipe: Recipe, pinned: dict[str, Any], *, restart: bool, engine: str = "local") -> None:
        """Take the folder for this recipe; RecipeError where it holds another run, unless `restart` clears it.

        `pinned` is what the bits depend on besides the recipe: threads, versions, contents of networks and rows.
        """
        if restart:
            self._clear()
        else:
            self.refuse_other(recipe, pinned)
        held = self.read("run.json") or {}
        self.path.mkdir(parents=True, exist_ok=True)
        self.write("run.json", {"recipe": recipe.model_dump(mode="json"), "pinned": _merged(held, pinned)})
        self.write("environment.json", environment() | {"engine": engine})

    def refuse_other(self, recipe: Recipe, pinned: dict[str, Any]) -> None:
        """Raise RecipeError where the folder holds a run that works in another way, or on other contents."""
        held = self.read("run.json")
        if not isinstance(held, dict | None):
            raise RecipeError(f"{self.path / 'run.json'} is not of a run. Give another folder, or --restart")
        if held is None:
            if next(self.path.glob(KEPT), None) is not None:
                raise RecipeError(f"{self.path} holds predictions of an unknown run. Give another folder, or --restart")
            return
        ways = recipe.model_dump(mode="json", include=set(WAYS))
        changed = _changed(held.get("recipe", {}), ways, WAYS) + _changed(held.get("pinned", {}), pinned, list(pinned))
        if changed:
            raise RecipeError(
                f"{self.path} holds another run (different: {', '.join(changed)}). Give another folder, or --restart"
            )

    def _clear(self) -> None:
        """Remove what an earlier run has left, the claim first: what is left without one is of no known run."""
        for file in [self.path / name for name in RESULTS] + list(self.path.glob(KEPT)):
            file.unlink(missing_ok=True)

    def trained(self, *, fresh: bool) -> Path:
        """Where trainings leave members, and from where they go on; emptied for a fresh run."""
        place = self.path / "trained"
        for file in place.glob("*") if fresh else ():
            file.unlink()
        return place

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

    def member(self, place: str, part: str, position: int) -> Path:
        """File of one member's predictions on one part of the rows."""
        return self.path / "predictions" / place / part / f"{position:05d}.safetensors"

    def keep(self, place: str, part: str, position: int, outputs: Tensor, seconds: float) -> None:
        """Keep one member's outputs on one part of the rows, with the seconds they took."""
        file = self.member(place, part, position)
        file.parent.mkdir(parents=True, exist_ok=True)
        _replace(file, to_bytes({"outputs": outputs.contiguous()}, {"seconds": repr(seconds)}))

    def kept(self, place: str, part: str, position: int) -> bool:
        """Whether one member's predictions are there and whole."""
        try:
            with safe_open(self.member(place, part, position), "pt"):
                return True
        except (OSError, SafetensorError):
            return False

    def outputs(self, places: Sequence[str], members: int, part: str) -> Tensor:
        """Outputs `[K, N, ..., C]` on one part of the rows, of so many members at each of the places."""
        rows = []
        for place in places:
            for position in range(members):
                with safe_open(self.member(place, part, position), "pt") as file:
                    rows.append(file.get_tensor("outputs"))
        return torch.stack(rows)

    def seconds(self, places: Sequence[str], members: int, part: str) -> float:
        """Seconds that predicting one part with all of an arm's members took."""
        total = 0.0
        for place in places:
            for position in range(members):
                with safe_open(self.member(place, part, position), "pt") as file:
                    total += float(file.metadata()["seconds"])
        return total


def way(device: torch.device) -> dict[str, Any]:
    """What the bits of a forward depend on besides recipe, network and inputs: the same for every worker of a run."""
    return {
        "device": str(device),
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


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


def _changed(old: dict[str, Any], new: dict[str, Any], keys: Sequence[str]) -> list[str]:
    """Keys whose values differ; of mappings only the names that both have are compared."""
    fresh, found = json.loads(json.dumps(new)), []
    for key in keys:
        one, other = old.get(key), fresh.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += [f"{key}.{name}" for name in sorted(one.keys() & other.keys()) if one[name] != other[name]]
        elif one != other:
            found.append(key)
    return sorted(found)


def _merged(held: dict[str, Any], pinned: dict[str, Any]) -> dict[str, Any]:
    """What is pinned, with the networks and rows that earlier runs in the folder had besides."""
    old = held.get("pinned", {})
    return {k: {**old.get(k, {}), **v} if isinstance(v, dict) else v for k, v in pinned.items()}


def _replace(file: Path, content: bytes) -> None:
    with replacing(file) as handle:
        handle.write(content)
