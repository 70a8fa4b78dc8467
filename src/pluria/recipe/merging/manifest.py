"""What a merge is written down as: method, options, and the sha256 of every file that was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pluria.recipe.merging.spec import Merge
from pluria.store.peft import CONFIG, TENSORS
from pluria.store.shards import beside
from pluria.store.streamed import hashed

PATHS = {name: name for name in ("statistics", "adapters", "texts", "domains", "encoder")} | {"base": "beside_base"}
"""Options whose values are paths, and what the manifest calls their files."""

HASH = "0" * 64


class Origin(Protocol):
    """A model that was read."""

    @property
    def label(self) -> str:
        """Its path."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything it is read from."""
        ...


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter in a folder of PEFT's, as a model that was read."""

    label: str

    @property
    def files(self) -> tuple[Path, ...]:
        """The configuration, which says how much the factors count, and the factors."""
        return Path(self.label) / CONFIG, Path(self.label) / TENSORS


def manifest(merge: Merge, sources: Sequence[Origin], hashes: Mapping[Path, str]) -> dict[str, Any]:
    """What was merged, as data: method, options, weights, and each source with the sizes and hashes of its files."""
    told = [
        {"path": source.label, "files": [_told(file, hashes.get(file, HASH)) for file in source.files]}
        for source in sources
    ]
    settings = dict(merge.about) or {"weights": merge.weights, "options": dict(merge.options)}
    options = {PATHS[name]: _files(name, merge.options[name]) for name in PATHS if name in merge.options}
    return {
        "format": 1,
        "method": merge.method,
        **settings,
        **{name: [_told(file, hashed(file)) for file in files] for name, files in options.items()},
        "seed": merge.seed,
        "dtype": merge.dtype,
        "counters": merge.counters,
        "models": told[: len(merge.models)],
        "base": told[-1] if merge.base is not None else None,
    }


def whole(merge: Merge, sources: Sequence[Origin], **more: Any) -> dict[str, Any]:
    """The manifest with all hashes, and what else is to be told."""
    hashes = {file: hashed(file) for source in sources for file in source.files}
    return {**manifest(merge, sources, hashes), **more}


def inputs(merge: Merge) -> list[Path]:
    """Every path that a merge names: models, the base, and files and folders among its options."""
    options = [merge.options[name] for name in PATHS if name in merge.options]
    named = [path for given in options for path in _paths(given)]
    files = [file for name in PATHS if name in merge.options for file in _files(name, merge.options[name])]
    return [*map(Path, merge.models), *([] if merge.base is None else [Path(merge.base)]), *named, *files]


def _told(file: Path, sha256: str) -> dict[str, Any]:
    return {"file": file.name, "bytes": file.stat().st_size, "sha256": sha256}


def _paths(given: Any) -> list[Path]:
    values = [given] if isinstance(given, str) else given
    return [Path(value) for value in values] if isinstance(values, list | tuple) else []


def _files(option: str, given: Any) -> list[Path]:
    """The files that are read because an option names them or their folder."""
    found: list[Path] = []
    for path in _paths(given):
        if option == "adapters":
            found += AdapterFiles(str(path)).files
        elif option == "base":
            found += beside(path) if path.is_dir() else []
        else:
            found += sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
    return found
