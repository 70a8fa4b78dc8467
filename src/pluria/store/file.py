"""A `.pluria` file: one or several named ensembles, and what is known about them, in one safetensors file.

    metadata  format "pluria" | version | digest | content: JSON of ensembles, families and about      tensors by name

docs/format.md specifies it. Nothing in a file is ever imported or run.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor

from pluria.core.ensemble import Ensemble
from pluria.core.errors import FileFormatError
from pluria.store.codec import decode, encode, same_fields
from pluria.store.pretrained import network_in
from pluria.store.tensors import digest, opened, read_tensor, size_of, write_tensors

VERSION = 1
"""Version of the format that is written, and the newest that is read."""

NAME = "ensemble"
"""What a single ensemble is called in its file."""

AGAIN = "Save the ensemble again, or take an unharmed copy of the file"

AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Loaded:
    """All ensembles of a file by name, and what the file says about them."""

    ensembles: Mapping[str, Ensemble]
    about: Mapping[str, Any]


def save(
    path: AnyPath, ensembles: Ensemble | Mapping[str, Ensemble], *, about: Mapping[str, Any] | None = None
) -> None:
    """Write one ensemble, or several by name, so that a reader meets the old file or the new one.

    about   what else is known, as JSON: by custom `network`, `pool`, `classes`, `inputs` (docs/format.md)

    The same ensembles and the same `about` give the same bytes. Raises TypeError for what a file cannot hold,
    ValueError for what could not be read again, and OSError (a full disk, no permission) with the old file untouched.
    """
    content, tensors = _encoded(ensembles, about)
    write_tensors(path, tensors, _headed(content, _digest(content, tensors)))


def file_size(ensembles: Ensemble | Mapping[str, Ensemble], *, about: Mapping[str, Any] | None = None) -> int:
    """Bytes of the file that `save` would write, to the byte: header, tensors that are equal kept once. It hashes them.

    Errors are those of `save`, but for the disk's.
    """
    content, tensors = _encoded(ensembles, about)
    return size_of(tensors, _headed(content, _digest(content, {})))


def _encoded(
    ensembles: Ensemble | Mapping[str, Ensemble], about: Mapping[str, Any] | None
) -> tuple[str, dict[str, Tensor]]:
    named = {NAME: ensembles} if isinstance(ensembles, Ensemble) else dict(ensembles)
    if not named or not all(isinstance(name, str) and name for name in named):
        raise ValueError(f"ensembles are saved by name, at least one; got the names {list(named)}")
    data, tensors = encode(named)
    return _text({**data, "about": _json(about or {})}), tensors


def _headed(content: str, digest: str) -> dict[str, str]:
    return {"format": "pluria", "version": str(VERSION), "digest": digest, "content": content}


def load(path: AnyPath, *, name: str | None = None, verify: bool = True, trust: bool = False) -> Any:
    """The Ensemble of a `.pluria` file, or the network (`torch.nn.Module`) of a local Hugging Face folder.

    name     which ensemble of the file, where it holds several
    verify   compare the file's content with its digest
    trust    run the code that comes with a folder, where its architecture is not one of transformers' own

    A folder's network is in evaluation mode and has the folder's checkpoint; nothing is downloaded. Raises ValueError
    for several ensembles without a name, a name that the file does not have, and a name for a folder; FileFormatError
    as `load_all` does; CheckpointError for a folder without a configuration or weights, with a missing shard or tensor,
    quantised already, or with code of its own and no `trust`.
    """
    if os.path.isdir(path):
        if name is not None:
            raise ValueError(
                f"{path} is a folder with one network; {name!r} would be the name of an ensemble in a file"
            )
        return network_in(Path(path), trust=trust)
    found = load_all(path, verify=verify).ensembles
    if name is None and len(found) > 1:
        raise ValueError(f"{path} holds {len(found)} ensembles; give the name of one: {', '.join(found)}")
    if name is not None and name not in found:
        raise ValueError(f"{path} has no ensemble {name!r}; it has {', '.join(found)}")
    return next(iter(found.values())) if name is None else found[name]


def load_all(path: AnyPath, *, verify: bool = True, mapped: bool = False) -> Loaded:
    """Everything in a file; tensors are read into memory, so the file may be changed afterwards.

    verify   compare the content with its digest (about a second per gigabyte)
    mapped   tensors are views of the file, as in `read_checkpoint`

    Raises FileFormatError for a file that is cut off, changed, from a newer version, or otherwise not as
    docs/format.md says; OSError where it cannot be opened.
    """
    with opened(path, FileFormatError) as handle:
        texts = _texts(path, handle.metadata() or {})
        tensors = {each: read_tensor(handle, each, mapped=mapped) for each in handle.keys()}  # noqa: SIM118
    if verify and texts["digest"] != _found(path, texts["content"], tensors):
        raise FileFormatError(
            f"{path}: the content does not have the digest it was written with; it was changed or damaged since. "
            "Take an unharmed copy; `verify=False` reads it all the same"
        )
    try:
        data = same_fields(_parsed(texts["content"]), ["ensembles", "families", "about"], "the content")
        ensembles = decode(data, tensors)
        if not ensembles or not isinstance(data["about"], dict):
            raise FileFormatError("the content has no ensemble, or `about` is no mapping")
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}. {AGAIN}") from None
    return Loaded(ensembles, data["about"])


def _texts(path: AnyPath, texts: Mapping[str, str]) -> Mapping[str, str]:
    """The metadata, once they are those of a file that can be read here."""
    if texts.get("format") != "pluria":
        raise FileFormatError(
            f"{path}: this safetensors file is no saved ensemble. If it is a checkpoint, use `read_checkpoint`"
        )
    version = texts.get("version", "")
    if version.isdecimal() and int(version) > VERSION:
        raise FileFormatError(
            f"{path}: the file has format version {version} and this Pluria reads up to {VERSION}. Install a newer one"
        )
    if version != str(VERSION):
        raise FileFormatError(f"{path}: the format version is {version!r}; wanted a whole number from 1. {AGAIN}")
    wanted = {"format", "version", "digest", "content"}
    if set(texts) != wanted:
        raise FileFormatError(f"{path}: the metadata are {sorted(texts)}; wanted {sorted(wanted)}. {AGAIN}")
    return texts


def _digest(content: str, tensors: Mapping[str, Any]) -> str:
    return digest(f"pluria {VERSION}\n{content}", tensors)


def _found(path: AnyPath, content: str, tensors: Mapping[str, Any]) -> str:
    try:
        return _digest(content, tensors)
    except TypeError as error:  # a dtype that the library reads and this format does not have
        raise FileFormatError(f"{path}: {error}. {AGAIN}") from None


def _text(data: Any) -> str:
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _json(about: Mapping[str, Any]) -> Any:
    """`about` as it will be read; what JSON would change or drop is refused."""
    try:
        plain = json.loads(_text(dict(about)))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"`about` holds what JSON does not: {error}") from None
    if plain != about:
        raise TypeError("`about` would change as JSON: use texts as keys and lists in place of tuples")
    return plain


def _parsed(content: str) -> Any:
    def refuse(word: str) -> NoReturn:
        raise ValueError(f"{word} is no JSON number")

    try:
        return json.loads(content, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"the content is not JSON: {error}") from None
