"""Reading other programs' checkpoints: safetensors files, torch files without code, Hugging Face folders in shards.

Nothing in a checkpoint is ever run: torch files are read with `weights_only=True`, and one that needs more is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from pluria.core.errors import CheckpointError
from pluria.core.params import check_finite, memory
from pluria.store.quantised import refuse_configured, refuse_quantised
from pluria.store.tensors import opened, read_tensor
from pluria.store.unpickle import is_torch_file, read_torch

T = TypeVar("T")

LEVELS = ("state_dict", "model_state_dict", "model", "state_dict_ema")
"""Where a training run keeps the tensors among its other state; the first that is there is taken."""

PREFIXES = ("module.", "_orig_mod.")
"""What data-parallel and compiled modules put before every name."""

FOLDER = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
"""What a Hugging Face folder calls its checkpoint, whole or as an index of shards; the first that is there is taken."""


@dataclass(frozen=True)
class Checkpoint:
    """Named tensors of one model, on the CPU, tied names as one object; and what was taken off or left out."""

    params: Mapping[str, Tensor]
    notes: tuple[str, ...]


def read_checkpoint(path: str | os.PathLike[str], *, level: str | None = None, mapped: bool = False) -> Checkpoint:
    """The tensors of a checkpoint: a `.safetensors` or torch file, an index of shards, or a folder with one of them.

    level    the entry that holds the tensors, where the usual ones (`state_dict`, `model`, ...) are not meant
    mapped   tensors are views of the files, which the system reads where they are used and may forget again: a large
             model takes no memory of its own. The files may be replaced meanwhile, but not written over in place

    Prefixes that all names have (`module.`, `_orig_mod.`) are taken off, entries that are no tensors are left out, and
    `notes` says so. Raises CheckpointError for a file that is damaged, empty or needs to run code, for NaN and Inf,
    and for one that is quantised already; OSError where it cannot be opened.
    """
    place, notes = Path(path), []
    if place.is_dir():
        place = checkpoint_in(place)
        notes.append(f"read {place.name}")
    found = _shards(place, mapped) if place.name.endswith(".index.json") else _file(place, mapped)
    entries = _unwrapped(found, level, place, notes)
    refuse_quantised(entries, what=str(path))
    params = _tied(stripped(_tensors(entries, place, notes), notes))
    check_finite(params, what=str(path))
    return Checkpoint(params, tuple(notes))


def entries_of(file: Path, *, level: str | None = None, mapped: bool = False) -> dict[str, Tensor]:
    """The tensors of one torch file, inside the level that holds them, unchecked; names are as they stand there."""
    notes: list[str] = []
    return _tensors(_unwrapped(_file(file, mapped), level, file, notes), file, notes)


def _file(path: Path, mapped: bool) -> Mapping[str, Any]:
    if is_torch_file(path):
        return read_torch(path, mapped=mapped)
    with opened(path, CheckpointError) as handle:
        if (handle.metadata() or {}).get("format") == "pluria":
            raise CheckpointError(f"{path}: this is a saved ensemble, not a checkpoint. Use `load`")
        return {name: read_tensor(handle, name, mapped=mapped) for name in handle.keys()}  # noqa: SIM118


def checkpoint_in(folder: Path) -> Path:
    """The checkpoint of a Hugging Face folder, or the index of its shards; CheckpointError where there is none.

    A configuration beside it that names a quantisation is refused.
    """
    config = folder / "config.json"
    if config.is_file():
        refuse_configured(_json(config), what=str(folder))
    for name in FOLDER:
        if (folder / name).is_file():
            return folder / name
    names = sorted(entry.name for entry in folder.iterdir())
    there = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    raise CheckpointError(
        f"{folder}: the folder has none of {', '.join(FOLDER)}; it has {there or 'nothing'}. Give the file itself"
    )


def shards_of(index: Path) -> dict[str, str]:
    """Each tensor's name to the file of its shard, all of them there; CheckpointError names the first that is not."""
    weight_map = _json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
        raise CheckpointError(f"{index}: the index has no `weight_map` from names to files. Download it again")
    for shard in dict.fromkeys(weight_map.values()):
        if shard != os.path.basename(shard):
            raise CheckpointError(f"{index}: the shard {shard!r} lies outside the index's own folder")
        if not (index.parent / shard).is_file():
            raise CheckpointError(f"{index}: the shard {shard} is missing. Download it into the same folder")
    return weight_map


def _shards(index: Path, mapped: bool) -> dict[str, Any]:
    weight_map = shards_of(index)
    found: dict[str, Any] = {}
    for shard in dict.fromkeys(weight_map.values()):
        found.update(_file(index.parent / shard, mapped))
    if missing := [name for name in weight_map if name not in found]:
        raise CheckpointError(f"{index}: the shards lack {len(missing)} tensors of the index: {', '.join(missing[:5])}")
    return {name: found[name] for name in weight_map}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: this is not JSON: {error}. Download it again") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: this JSON is no mapping. Download it again")
    return found


def _unwrapped(found: Mapping[str, Any], level: str | None, path: Path, notes: list[str]) -> Mapping[str, Any]:
    """The mapping that holds the tensors, inside the levels that a training run puts around it."""
    if level is not None and not isinstance(found.get(level), Mapping):
        raise CheckpointError(f"{path}: there is no level {level!r} to read; there are {', '.join(map(str, found))}")
    for _ in LEVELS:  # no more levels than have names: a torch file may hold a mapping that holds itself
        chosen = level or next((name for name in LEVELS if isinstance(found.get(name), Mapping)), None)
        if chosen is None:
            break
        others = [str(name) for name in found if name != chosen]
        notes.append(f"took the level {chosen!r}" + (f"; left out {_listed(others)}" if others else ""))
        found, level = found[chosen], None
    return {str(name): value for name, value in found.items()}


def _tensors(entries: Mapping[str, Any], path: Path, notes: list[str]) -> dict[str, Tensor]:
    params = {name: value.detach() for name, value in entries.items() if isinstance(value, Tensor)}
    if others := [name for name, value in entries.items() if not isinstance(value, Tensor)]:
        notes.append(f"left out what is no tensor: {_listed(others)}")
    if not params:
        mappings = [name for name, value in entries.items() if isinstance(value, Mapping)]
        hint = f"Give the `level`: {', '.join(mappings)}" if mappings else "Give a state dict"
        raise CheckpointError(f"{path}: the checkpoint holds no tensors. {hint}")
    for name, value in params.items():
        if value.layout is not torch.strided or value.is_meta:
            raise CheckpointError(f"{path}: tensor {name!r} is {value.layout} on {value.device}; give dense tensors")
    return params


def stripped(params: dict[str, T], notes: list[str]) -> dict[str, T]:
    """Without the prefixes that all names have; `notes` is told."""
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in params)), None):
        notes.append(f"took the prefix {prefix!r} off every name")
        params = {name.removeprefix(prefix): value for name, value in params.items()}
    return params


def _tied(params: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names that share memory as one object; an empty tensor shares nothing."""
    first: dict[Hashable, Tensor] = {}
    return {name: first.setdefault(memory(value), value) for name, value in params.items()}


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
