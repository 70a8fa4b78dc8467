"""A checkpoint that is read piece by piece, never as a whole: only headers are held.

safetensors, whole or in shards   elements at their offset, read into memory that the caller gives
torch files                       views of the file, which the system reads where they are used
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pluria.core.errors import CheckpointError
from pluria.core.params import memory
from pluria.store.checkpoint import checkpoint_in, entries_of, shards_of, stripped
from pluria.store.outline import outline_of
from pluria.store.quantised import refuse_quantised
from pluria.store.unpickle import is_torch_file


@dataclass(frozen=True)
class Streamed:
    """Named tensors of one checkpoint on disk, read where they are used.

    outline shapes and dtypes, in the order in which the files have them
    label   what it is called in messages, its path
    files   everything it is read from
    ties    further names of a tensor to its first name
    """

    label: str
    outline: Mapping[str, Tensor]
    files: tuple[Path, ...]
    ties: Mapping[str, str]
    places: Mapping[str, tuple[int, int] | Tensor]

    def read(self, name: str, start: int, out: Tensor) -> None:
        """Fill `out` `[n]`, contiguous and of the tensor's dtype, from the flat index `start` on."""
        place = self.places[name]
        if isinstance(place, Tensor):
            out.copy_(place[start : start + len(out)])
            return
        handle, offset = place
        view = out.view(torch.uint8).numpy().data
        done, at = 0, offset + start * out.element_size()
        while done < len(view):
            read = os.preadv(handle, [view[done:]], at + done)
            if not read:
                raise CheckpointError(f"{self.label}: the file ends within {name!r}; it was cut off while it was read")
            done += read

    def stamp(self) -> list[tuple[str, int, int]]:
        """Path, size and time of change of each file: equal while nobody writes to them."""
        found = [(path, path.stat()) for path in self.files]
        return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in found]


@contextlib.contextmanager
def streamed(paths: Sequence[str | os.PathLike[str]], *, level: str | None = None) -> Iterator[list[Streamed]]:
    """Checkpoints to read piece by piece: safetensors or torch files, indices of shards, Hugging Face folders.

    level   the entry of torch files that holds the tensors, where the usual ones are not meant

    Only headers are read. Prefixes that all names have (`module.`, `_orig_mod.`) are taken off. Raises CheckpointError
    for a file that is damaged, empty, quantised or needs to run code; OSError where it cannot be opened.
    """
    with contextlib.ExitStack() as stack:
        yield [_source(Path(path), level, stack) for path in paths]


def hashed(path: Path) -> str:
    """sha256 of a file, in hex, as `sha256sum` prints it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256", _bufsize=2**20).hexdigest()


def _source(path: Path, level: str | None, stack: contextlib.ExitStack) -> Streamed:
    place = checkpoint_in(path) if path.is_dir() else path
    wanted = shards_of(place) if place.name.endswith(".index.json") else None
    files = [place] if wanted is None else [place.parent / shard for shard in dict.fromkeys(wanted.values())]
    found: dict[str, tuple[Tensor, Any]] = {}
    for file in files:
        found |= _torch(file, level) if is_torch_file(file) else _safetensors(file, stack)
    if wanted is not None and (missing := [name for name in wanted if name not in found]):
        raise CheckpointError(f"{place}: the shards lack {len(missing)} tensors of the index: {', '.join(missing[:5])}")
    named = stripped(found, [])
    outline = {name: value for name, (value, _) in named.items()}
    refuse_quantised(outline, what=str(path))
    first: dict[Any, str] = {}
    ties = {n: first.setdefault(memory(p) if isinstance(p, Tensor) else n, n) for n, (_, p) in named.items()}
    places = {name: place for name, (_, place) in named.items()}
    index = (place,) if wanted is not None else ()
    return Streamed(str(path), outline, (*index, *files), {n: to for n, to in ties.items() if n != to}, places)


def _torch(file: Path, level: str | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Tensors of a torch file as flat views of it, which are copies only where its memory is in another order."""
    params = entries_of(file, level=level, mapped=True)
    flat: dict[Any, Tensor] = {}
    for value in params.values():
        flat.setdefault(memory(value), value.reshape(-1))
    return {name: (value.to("meta"), flat[memory(value)]) for name, value in params.items()}


def _safetensors(file: Path, stack: contextlib.ExitStack) -> dict[str, tuple[Tensor, tuple[int, int]]]:
    """Tensors of a safetensors file by their offset; the library has looked whether the header is sound."""
    outline = outline_of(file)
    handle = os.open(file, os.O_RDONLY)
    stack.callback(os.close, handle)
    length = int.from_bytes(os.pread(handle, 8, 0), "little")
    header = json.loads(os.pread(handle, length, 8))
    if header.get("__metadata__", {}).get("format") == "pluria":
        raise CheckpointError(f"{file}: this is a saved ensemble, not a checkpoint. Use `load` and merge what it gives")
    starts = {name: 8 + length + header[name]["data_offsets"][0] for name in outline}
    return {name: (outline[name], (handle, starts[name])) for name in sorted(outline, key=starts.__getitem__)}
