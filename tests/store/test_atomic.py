import errno
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pluria.core.ensemble import single
from pluria.store import atomic, load, save
from pluria.store.atomic import replacing

OLD = b"what was there before"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "file.pluria"
    path.write_bytes(OLD)
    return path


def untouched(target: Path) -> bool:
    return target.read_bytes() == OLD and os.listdir(target.parent) == [target.name]


def test_the_new_file_takes_the_place_of_the_old_one(target: Path) -> None:
    with replacing(target) as file:
        file.write(b"new")
        assert target.read_bytes() == OLD
    assert target.read_bytes() == b"new"
    assert os.listdir(target.parent) == [target.name]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(target: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(OSError, match=r"No space left on device; the file was not written") as caught:
        save(target, single({"w": torch.zeros(3)}))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(target)
    assert untouched(target)


def test_a_write_that_is_cut_short_leaves_the_old_file(target: Path) -> None:
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    limit += "; resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))"
    found = write_elsewhere(target, limit)
    assert "File too large; the file was not written" in found.stderr
    assert untouched(target)


def test_a_process_that_is_killed_leaves_the_old_file(target: Path) -> None:
    found = write_elsewhere(target, "import signal; os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)")
    assert found.returncode == -signal.SIGKILL
    assert target.read_bytes() == OLD


def test_a_process_that_is_let_be_writes_the_file(target: Path) -> None:
    assert write_elsewhere(target, "pass").returncode == 0
    assert target.read_bytes() == b"0" * 10000


def write_elsewhere(target: Path, before: str) -> subprocess.CompletedProcess[str]:
    """Write 10,000 bytes in a process of its own, which takes the module by itself, without the package's imports."""
    script = f"""
import os, runpy
replacing = runpy.run_path({atomic.__file__!r})["replacing"]
{before}
with replacing({str(target)!r}) as file:
    file.write(b"0" * 10000)
"""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)


def test_an_interrupt_leaves_the_old_file(target: Path) -> None:
    def interrupted() -> None:
        with replacing(target) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert untouched(target)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_mode_follows_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        save(tmp_path / "e.pluria", single({"w": torch.zeros(1)}))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "e.pluria").stat().st_mode) == mode


def test_a_link_is_followed(target: Path) -> None:
    link = target.parent / "link"
    link.symlink_to(target)
    with replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_missing_folder_and_a_folder_in_the_way_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="No such file or directory; the file was not written"):
        save(tmp_path / "absent" / "e.pluria", single({"w": torch.zeros(1)}))
    with pytest.raises(IsADirectoryError, match="a folder stands where the file should go"):
        save(tmp_path, single({"w": torch.zeros(1)}))


def test_an_error_without_a_number_still_says_what_happened(target: Path) -> None:
    with pytest.raises(OSError, match="strange; the file was not written"), replacing(target):
        raise OSError("strange")
    assert untouched(target)


def test_a_folder_that_cannot_be_flushed_does_no_harm(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def files_only(handle: int) -> None:
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not for folders")
        real(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    save(target, single({"w": torch.ones(2)}))
    assert torch.equal(load(target).params(0)["w"], torch.ones(2))


def test_a_loaded_ensemble_outlives_its_file(target: Path) -> None:
    save(target, single({"w": torch.ones(5000)}))
    kept = load(target)
    size = target.stat().st_size
    target.write_bytes(b"\0" * size)  # overwritten in place, which a mapped file would show
    assert torch.equal(kept.params(0)["w"], torch.ones(5000))
