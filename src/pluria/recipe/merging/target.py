"""Where a merged model goes: one safetensors file, or a Hugging Face folder like that of its first source."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pluria.core.errors import PluriaError
from pluria.merge.pieces import Leaf
from pluria.store.outline import outline_in
from pluria.store.shards import beside, dealt, safe, write_index
from pluria.store.streamed import Streamed

MANIFEST = "merge.json"


@dataclass(frozen=True)
class Layout:
    """Files to names to tensors without data. `origin` is the folder that `out` is made like; None: `out` is a file."""

    out: Path
    files: Mapping[str, Mapping[str, Tensor]]
    origin: Path | None

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes by name."""
        return {n: v.numel() * v.element_size() for names in self.files.values() for n, v in names.items()}

    def texts(self, manifest: Mapping[str, Any]) -> dict[str, dict[str, str]]:
        """Metadata of each file's header; a folder has its manifest beside them."""
        more = {} if self.origin else {"merge": json.dumps(manifest, sort_keys=True)}
        return {file: {"format": "pt", **more} for file in self.files}


def layout_of(first: Streamed, leaves: Sequence[Leaf], out: Path, *, shard: int, overwrite: bool) -> Layout:
    """The files of `out`: one where it ends in `.safetensors`, else a folder with the shards of `first`.

    Raises PluriaError where `out` cannot be a folder of that kind; FileExistsError for a folder that is not empty.
    """
    made = outline_of(first, leaves)
    _refuse(out, overwrite)
    if out.suffix == ".safetensors":
        return Layout(out, {out.name: made}, None)
    origin = Path(first.label)
    if not (origin / "config.json").is_file():
        raise PluriaError(
            f"{out}: name a .safetensors file; for a folder, {origin} would have to be one with config.json"
        )
    if shard < 1:
        raise PluriaError(f"a shard has one byte or more; got {shard}")
    return Layout(out, _dealt(origin, made, shard), origin)


def outline_of(first: Streamed, leaves: Sequence[Leaf]) -> dict[str, Tensor]:
    """Tensors without data as they are written: those of `first`, in the dtypes of the leaves."""
    kinds = {leaf.name: leaf.dtype for leaf in leaves}
    return {
        name: torch.empty(value.shape, dtype=kinds.get(first.ties.get(name, name), value.dtype), device="meta")
        for name, value in first.outline.items()
    }


def _dealt(origin: Path, made: Mapping[str, Tensor], shard: int) -> dict[str, dict[str, Tensor]]:
    """Names by file: the shards of the source, or as many as are needed where it is one file."""
    theirs = outline_in(origin)
    if len(theirs) > 1:
        files = {safe(file): [name for name in names if name in made] for file, names in theirs.items()}
        if sum(map(len, files.values())) == len(made):
            return {file: {name: made[name] for name in names} for file, names in files.items() if names}
    sizes = {name: value.numel() * value.element_size() for name, value in made.items()}
    return {file: {name: made[name] for name in names} for file, names in dealt(sizes, shard).items()}


def refuse_inputs(out: Path, sources: Sequence[Streamed], also: Sequence[Path] = ()) -> None:
    """Raise PluriaError where `out` is something that is read, holds it, or lies in it."""
    place = Path(os.path.realpath(out))
    for path in [*(path for source in sources for path in (Path(source.label), *source.files)), *also]:
        own = Path(os.path.realpath(path))
        if own == place or place in own.parents or own in place.parents:
            raise PluriaError(f"{out} is {path}, or one holds the other; name another place")


def folder_of(out: Path, what: str, overwrite: bool) -> None:
    """Raise PluriaError where `out` cannot be a folder, FileExistsError for one that is not empty."""
    if out.is_file() or out.suffix == ".safetensors":
        raise PluriaError(f"{out}: {what}; name a folder")
    _refuse(out, overwrite)


def _refuse(out: Path, overwrite: bool) -> None:
    place = Path(os.path.realpath(out))
    if not place.parent.is_dir():
        raise PluriaError(f"{out}: there is no folder {place.parent}; make it first")
    if out.suffix == ".safetensors":
        if place.is_dir():
            raise PluriaError(f"{out} is a folder; name a file in it")
    elif place.is_file() or (place.is_dir() and any(place.iterdir()) and not overwrite):
        raise FileExistsError(
            17, "there is something already; name another folder, or have a folder replaced by overwrite", str(out)
        )


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Put `merge.json` into a folder that is being written."""
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def write_beside(folder: Path, layout: Layout, manifest: Mapping[str, Any], dtype: str | None) -> None:
    """Put the index, the manifest and what the origin has beside its tensors into a folder that is being written."""
    if layout.origin is None:
        return
    for file in beside(layout.origin):
        shutil.copy(file, folder / file.name)
    write_index(folder, {file: list(names) for file, names in layout.files.items()}, layout.sizes)
    write_manifest(folder, manifest)
    if dtype is not None:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # Old versions of the library call it torch_dtype.
        config |= {key: dtype for key in ("dtype", "torch_dtype") if key in config} or {"dtype": dtype}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
