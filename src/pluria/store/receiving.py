"""Safetensors files that are filled piece by piece, in any order, and appear all at once when they are whole.

    .NAME.merging beside the target:  state, done, and the files  ->  filled at known offsets  ->  flush  ->  rename

Files have their full size from the start, so that a full disk is found before any work. Names are marked as done once
their bytes are on the disk: whoever is killed goes on behind the last mark, to the same bytes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from torch import Tensor

from pluria.core.errors import PluriaError
from pluria.store.atomic import flush_folder
from pluria.store.shards import locked, put_back, take_place
from pluria.store.tensors import header, raw

COMMIT = 2**28
"""Bytes after which what is finished is flushed and marked."""

Files = Mapping[str, Mapping[str, Tensor]]
"""Each file to its names and their tensors without data."""


@dataclass
class Receiver:
    """Files under way. `done` are the names that an earlier, interrupted run has finished.

    folder   where the files are until they are whole; what else is put there goes along if a folder is written
    """

    folder: Path
    done: frozenset[str]
    heads: Mapping[str, tuple[int, bytes]]
    places: Mapping[str, tuple[int, int]]
    sizes: Mapping[str, int]
    marks: BinaryIO
    waiting: list[str] = field(default_factory=list)
    commits: list[Future[None]] = field(default_factory=list)
    flusher: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    def write(self, name: str, start: int, values: Tensor) -> None:
        """Put elements `[n]` of a tensor in place, from its flat index `start` on; threads may do so at once."""
        handle, offset = self.places[name]
        view, at = raw(values), offset + start * values.element_size()
        while view:
            wrote = os.pwrite(handle, view, at)
            view, at = view[wrote:], at + wrote

    def mark(self, name: str) -> None:
        """All of a tensor is written."""
        self.waiting.append(name)
        if sum(self.sizes[each] for each in self.waiting) >= COMMIT:
            self._commit()

    def retell(self, texts: Mapping[str, Mapping[str, str]], files: Files) -> None:
        """Give files other texts in their headers, of the same length."""
        for file, own in texts.items():
            handle, head = self.heads[file]
            new = _head(files[file], own)
            if len(new) != len(head):
                raise ValueError(
                    f"{file}: the texts of a header keep their length; {len(head)} bytes became {len(new)}"
                )
            os.pwrite(handle, new, 0)

    def finish(self) -> None:
        """Flush everything; raises what went wrong while flushing."""
        self._commit()
        for commit in self.commits:
            commit.result()

    def _commit(self) -> None:
        names, self.waiting = self.waiting, []
        self.commits.append(self.flusher.submit(self._flushed, names))

    def _flushed(self, names: list[str]) -> None:
        for handle, _ in self.heads.values():
            os.fsync(handle)
        self.marks.write("".join(json.dumps(name) + "\n" for name in names).encode())
        self.marks.flush()


@contextmanager
def receiving(
    target: Path,
    files: Files,
    texts: Mapping[str, Mapping[str, str]],
    *,
    identity: str,
    folder: bool,
    restart: bool = False,
) -> Iterator[Receiver]:
    """Files to be filled; when the block ends without an error they are at `target`, whole.

    target     a folder that gets these files, or, with `folder` false, the one file itself
    texts      metadata of each file's header
    identity   what the bytes depend on: an earlier run of the same is gone on with, another one is forgotten
    restart    forget an earlier run

    An interruption leaves what is done for the next run. Any other error removes it; what was at `target` before is
    untouched. Raises PluriaError where another process is writing there, OSError for a full disk.
    """
    work = work_folder(target)
    try:
        with _locked(work), contextlib.ExitStack() as stack:
            put_back(Path(os.path.realpath(target)))
            known = hashlib.sha256("\0".join([identity, *map(str, _layout(files, texts))]).encode()).hexdigest()
            receiver = _opened(work, files, texts, known, restart, stack)
            stack.callback(receiver.flusher.shutdown)
            yield receiver
            receiver.finish()
            _publish(receiver.folder, target, None if folder else next(iter(files)))
    except (KeyboardInterrupt, Busy):
        raise
    except BaseException as error:
        shutil.rmtree(work, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        reason = f"{error.strerror or error}; nothing was written, and what was there before is untouched"
        raise OSError(error.errno or errno.EIO, reason, str(target)) from error
    shutil.rmtree(work, ignore_errors=True)


class Busy(PluriaError):
    """Another process is writing the same target."""


def work_folder(target: Path) -> Path:
    """Where the files of a target are while they are filled."""
    place = Path(os.path.realpath(target))
    return place.parent / f".{place.name}.merging"


@contextmanager
def _locked(work: Path) -> Iterator[None]:
    """One process at a time, where the system has locks."""
    work.mkdir(parents=True, exist_ok=True)
    (work / "lock").touch()
    with contextlib.ExitStack() as stack:
        try:
            with contextlib.suppress(ImportError):
                stack.enter_context(locked(work / "lock"))
        except BlockingIOError:
            raise Busy(f"{work}: another process is merging into the same place; wait for it") from None
        yield


def _layout(files: Files, texts: Mapping[str, Mapping[str, str]]) -> Iterator[tuple[str, bytes]]:
    return ((file, _head(own, texts[file])) for file, own in files.items())


def _head(own: Mapping[str, Tensor], texts: Mapping[str, str]) -> bytes:
    return header([(name, own[name]) for name in _order(own)], texts)


def _order(own: Mapping[str, Tensor]) -> list[str]:
    return sorted(own, key=lambda name: (-own[name].element_size(), name))


def _opened(
    work: Path,
    files: Files,
    texts: Mapping[str, Mapping[str, str]],
    identity: str,
    restart: bool,
    stack: contextlib.ExitStack,
) -> Receiver:
    """Files of their full size, or those that the same merge has left; `stack` closes them."""
    state, folder = work / "state", work / "files"
    # Without its files a mark means nothing: they are gone where a process was killed right after it had finished.
    whole = state.is_file() and all((folder / file).is_file() for file in files)
    if restart or not whole or state.read_text(encoding="utf-8") != identity:
        shutil.rmtree(folder, ignore_errors=True)
        (work / "done").unlink(missing_ok=True)
        state.write_text(identity, encoding="utf-8")
    folder.mkdir(exist_ok=True)
    marks = stack.enter_context((work / "done").open("a+b"))
    heads: dict[str, tuple[int, bytes]] = {}
    places: dict[str, tuple[int, int]] = {}
    sizes: dict[str, int] = {}
    for file, head in _layout(files, texts):
        handle, at = os.open(folder / file, os.O_RDWR | os.O_CREAT, 0o666), len(head)
        stack.callback(os.close, handle)
        heads[file] = handle, head
        for name in _order(files[file]):
            places[name], sizes[name] = (handle, at), files[file][name].numel() * files[file][name].element_size()
            at += sizes[name]
        _allocate(handle, at)
        os.pwrite(handle, head, 0)
    return Receiver(folder, _done(marks, places), heads, places, sizes, marks)


def _done(marks: BinaryIO, places: Mapping[str, object]) -> frozenset[str]:
    """Names that were marked; a line that was cut off by a crash counts for nothing, and ends where it is."""
    marks.seek(0)
    lines = marks.read().split(b"\n")
    if lines[-1]:
        marks.write(b"\n")
    found = set()
    for line in lines[:-1]:
        with contextlib.suppress(ValueError):
            found.add(json.loads(line))
    return frozenset(found & set(places))


def _allocate(handle: int, size: int) -> None:
    """The file's full size, on the disk where the system can promise it."""
    if hasattr(os, "posix_fallocate") and size:
        os.posix_fallocate(handle, 0, size)
    os.ftruncate(handle, size)


def _publish(folder: Path, target: Path, file: str | None) -> None:
    place = Path(os.path.realpath(target))
    if file is not None:
        os.replace(folder / file, place)
    else:
        flush_folder(folder)
        take_place(folder, place)
    flush_folder(place.parent)
