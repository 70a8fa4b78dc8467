"""What the files of a checkpoint hold, from their headers alone: names, shapes and dtypes, on the device `meta`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from pluria.core.errors import CheckpointError
from pluria.store.checkpoint import checkpoint_in, shards_of
from pluria.store.tensors import DTYPES, opened
from pluria.store.unpickle import is_torch_file, read_torch

KNOWN = {name: dtype for dtype, name in DTYPES.items()}


def outline_in(folder: Path) -> dict[str, dict[str, Tensor]]:
    """Each file of a Hugging Face folder's checkpoint to the names in it and their tensors without data.

    Raises CheckpointError for a folder without a checkpoint, with a missing shard, or with a file that is not whole.
    """
    place = checkpoint_in(folder)
    if not place.name.endswith(".index.json"):
        return {place.name: outline_of(place)}
    shards = shards_of(place)
    found = {file: outline_of(folder / file) for file in dict.fromkeys(shards.values())}
    if missing := [name for name, file in shards.items() if name not in found[file]]:
        raise CheckpointError(f"{place}: the shards lack {len(missing)} tensors of the index: {', '.join(missing[:5])}")
    return found


def outline_of(file: Path) -> dict[str, Tensor]:
    """Names in a safetensors or torch file, and their tensors without data."""
    if is_torch_file(file):
        held: Mapping[str, object] = read_torch(file, outline=True)
        return {name: value for name, value in held.items() if isinstance(value, Tensor)}
    with opened(file, CheckpointError) as handle:
        parts = {name: handle.get_slice(name) for name in handle.keys()}  # noqa: SIM118
        kinds = {name: (part.get_shape(), part.get_dtype()) for name, part in parts.items()}
    for name, (_, kind) in kinds.items():
        if kind not in KNOWN:
            raise CheckpointError(f"{file}: tensor {name!r} is {kind}, which is not read here")
    return {name: torch.empty(shape, dtype=KNOWN[kind], device="meta") for name, (shape, kind) in kinds.items()}
