"""A member as a folder that transformers opens: its tensors, and what the source's folder has beside its own.

    temporary folder  <-  one shard after the other, one tensor at a time; configuration, tokenizer  ->  rename

Shards are those of the source where the names are the source's; otherwise tensors are dealt out in their order.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.core.errors import CheckpointError
from pluria.store.outline import outline_in
from pluria.store.shards import SHARD, appearing, beside, dealt, safe, write_index
from pluria.store.tensors import write_made


def export_folder(
    ensemble: Ensemble,
    member: int,
    folder: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str],
    overwrite: bool = False,
    shard: int = SHARD,
) -> Path:
    """Write member number `member` as a folder that `from_pretrained` opens, and return its path.

    source      the Hugging Face folder that the ensemble was drawn from; its configuration, tokenizer and licence are
                copied, its checkpoint and its description are not
    overwrite   whether a folder with something in it is replaced
    shard       bytes in a file, for a source that is no index of shards

    Tied tensors are written once. One tensor is held at a time. Whoever looks sees no folder, the old one, or the whole
    new one. Raises ValueError for a member that the ensemble does not have, a size that is no positive number, and for
    the source itself; FileExistsError for a folder that is not empty; CheckpointError for a source that is no such
    folder or one of another network.
    """
    place, origin = Path(os.path.realpath(folder)), Path(source)
    _refuse(ensemble, member, place, origin, overwrite, shard)
    files = _files(ensemble, origin, shard)
    with appearing(place) as temporary:
        for own, names in files.items():
            _write(ensemble, member, temporary / own, names)
        write_index(temporary, files, {name: _size(ensemble, name) for names in files.values() for name in names})
        for file in beside(origin):
            shutil.copy(file, temporary / file.name)
    return Path(folder)


def _refuse(ensemble: Ensemble, member: int, place: Path, origin: Path, overwrite: bool, shard: int) -> None:
    if member not in ensemble.members:
        raise ValueError(f"the ensemble has no member {member}; its members are {list(ensemble.members)}")
    if isinstance(shard, bool) or not isinstance(shard, int) or shard < 1:
        raise ValueError(f"a shard has one byte or more; got {shard!r}")
    if not (origin / "config.json").is_file():
        raise CheckpointError(f"{origin}: this is no Hugging Face folder, it has no config.json")
    own = Path(os.path.realpath(origin))
    if own == place or place in own.parents:
        raise ValueError(f"{place} is the source, or holds it; name another folder")
    if place.is_file() or (place.is_dir() and any(place.iterdir()) and not overwrite):
        raise FileExistsError(
            17, "there is something already; name another folder, or have a folder replaced by overwrite", str(place)
        )


def _files(ensemble: Ensemble, origin: Path, shard: int) -> dict[str, list[str]]:
    """Names by file: those of the source where the ensemble has them all, with its shards."""
    families, theirs = ensemble.families, outline_in(origin)
    known = [name for names in theirs.values() for name in names]
    shapes = {name: value.shape for names in theirs.values() for name, value in names.items()}
    if wrong := [name for name in known if name in families and families[name].shape != shapes[name]]:
        name = wrong[0]
        raise CheckpointError(
            f"{origin} is not what the ensemble was drawn from: it has {name!r} with {tuple(shapes[name])}, "
            f"the ensemble with {tuple(families[name].shape)}"
        )
    kept = {id(families[name]) for name in known if name in families}
    if all(id(family) in kept for family in families.values()):
        shards = {safe(file): [name for name in names if name in families] for file, names in theirs.items()}
        if len(shards) > 1:
            return {file: names for file, names in shards.items() if names}
        return dealt({name: _size(ensemble, name) for name in next(iter(shards.values()))}, shard)
    # The library calls some tensors by other names in memory than in files, and reads both.
    first = {id(family): name for name, family in reversed(list(families.items()))}
    own = [name for name, family in families.items() if first[id(family)] == name]
    return dealt({name: _size(ensemble, name) for name in own}, shard)


def _size(ensemble: Ensemble, name: str) -> int:
    family = ensemble.families[name]
    return family.shape.numel() * family.dtype.itemsize


def _write(ensemble: Ensemble, member: int, file: Path, names: Sequence[str]) -> None:
    outline = ensemble.outline()

    def make(name: str) -> Tensor:
        family = ensemble.families[name]
        out = torch.empty(family.shape, dtype=family.dtype)
        family.write(member, out)
        return out

    write_made(file, {name: outline[name] for name in names}, make, {"format": "pt"})
