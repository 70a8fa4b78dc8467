"""A Hugging Face folder as it is written: which tensor is in which file, what lies beside, how it takes its place."""

from __future__ import annotations

import contextlib
import glob
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from pluria.store.atomic import flush_folder

SHARD = 5_000_000_000
"""Bytes in a shard, where the source had none or others."""

WHOLE = "model.safetensors"
COPIED = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".py")
"""Suffixes of what goes along: configurations, tokenizers, templates, and the code of networks that bring their own."""

NAMED = ("LICENSE", "NOTICE")


def safe(file: str) -> str:
    """The name of a safetensors file in place of a torch file's."""
    return (
        file
        if file.endswith(".safetensors")
        else file.replace("pytorch_model", "model").replace(".bin", ".safetensors")
    )


def dealt(sizes: Mapping[str, int], shard: int) -> dict[str, list[str]]:
    """Names in files of at most `shard` bytes, or of one tensor; `sizes` are bytes by name, in order."""
    parts: list[list[str]] = [[]]
    held = 0
    for name, size in sizes.items():
        if parts[-1] and held + size > shard:
            parts.append([])
            held = 0
        parts[-1].append(name)
        held += size
    if len(parts) == 1:
        return {WHOLE: parts[0]}
    return {f"model-{i:05d}-of-{len(parts):05d}.safetensors": part for i, part in enumerate(parts, 1)}


def write_index(folder: Path, files: Mapping[str, Sequence[str]], sizes: Mapping[str, int]) -> None:
    """The index of several files; one file needs none."""
    if len(files) > 1:
        places = {name: file for file, names in files.items() for name in names}
        total = sum(sizes[name] for name in places)
        held = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
        (folder / f"{WHOLE}.index.json").write_text(json.dumps(held, indent=2) + "\n", encoding="utf-8")


def beside(origin: Path) -> list[Path]:
    """Files of a Hugging Face folder that go along with other tensors."""
    files = sorted(entry for entry in origin.iterdir() if entry.is_file())
    return [
        file
        for file in files
        if not file.name.endswith(".index.json") and (file.suffix in COPIED or file.name.startswith(NAMED))
    ]


@contextmanager
def appearing(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A folder to be filled, which takes the place of `folder` when the block ends without an error.

    What a process that was killed has left beside it is removed.
    """
    place = Path(os.path.realpath(folder))
    put_back(place)
    for left in place.parent.glob(f".{glob.escape(place.name)}.pluria-*.tmp"):
        with contextlib.suppress(ImportError, OSError), locked(left):
            shutil.rmtree(left, ignore_errors=True)
    temporary = place.parent / f".{place.name}.pluria-{secrets.token_hex(8)}.tmp"
    temporary.mkdir(parents=True)
    try:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(ImportError, OSError):
                stack.enter_context(locked(temporary))
            yield temporary
            flush_folder(temporary)
            take_place(temporary, place)
            flush_folder(place.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def locked(place: Path) -> Iterator[None]:
    """A lock on a file or folder, for one process at a time.

    Raises BlockingIOError where another process holds it, ImportError or OSError where there are no locks.
    """
    import fcntl

    handle = os.open(place, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def put_back(place: Path) -> None:
    """Undo what is left of a `take_place` that was killed: the old folder returns where no new one is."""
    old = _aside(place)
    if old.is_dir() and place.exists():
        shutil.rmtree(old, ignore_errors=True)
    elif old.is_dir():
        os.replace(old, place)


def _aside(place: Path) -> Path:
    return place.parent / f".{place.name}.pluria-old"


def take_place(temporary: Path, place: Path) -> None:
    """Put a finished folder where it belongs; an old one is moved out of the way first, and then removed."""
    old = _aside(place)
    if place.is_dir():
        os.replace(place, old)
    try:
        os.replace(temporary, place)
    except OSError:
        if old.is_dir():
            os.replace(old, place)
        raise
    shutil.rmtree(old, ignore_errors=True)
