"""What a process takes: seconds of CPU and of the clock, and memory; and whether its files are in the page cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

UNSET = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONDONTWRITEBYTECODE")
"""What a user would not have set."""


@dataclass(frozen=True)
class Run:
    """One process: seconds of user, system and wall time, megabytes of anonymous memory at most."""

    user: float
    system: float
    wall: float
    memory: float

    @property
    def cpu(self) -> float:
        """Seconds of CPU."""
        return self.user + self.system


def prepare(files: Sequence[Path], state: str) -> None:
    """Put files out of the page cache, as far as they are on the disk, or into it."""
    os.sync()
    for file in files:
        with open(file, "rb", buffering=0) as handle:
            if state == "cold":
                os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            else:
                while handle.read(2**24):
                    pass


def run(command: list[str], log: Path) -> Run:
    """Run a command to its end and look at what it took."""
    begin = time.perf_counter()
    env = {name: value for name, value in os.environ.items() if name not in UNSET}
    with open(log, "wb") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=env)
        peak = [0.0]
        watcher = threading.Thread(target=watch, args=(process.pid, peak))
        watcher.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        watcher.join()
    if process.returncode:
        raise RuntimeError(f"{command} failed:\n{log.read_text()}")
    return Run(usage.ru_utime, usage.ru_stime, wall, peak[0])


def watch(pid: int, peak: list[float]) -> None:
    """Keep the largest anonymous memory of a process in MB, until it is gone."""
    while True:
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:
            return
        found = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
        if not found:
            return
        peak[0] = max(peak[0], int(found[0]) / 1e3)
        time.sleep(0.01)


def clear(out: Path) -> None:
    """Remove a file or a folder, if it is there."""
    shutil.rmtree(out, ignore_errors=True) if out.is_dir() else out.unlink(missing_ok=True)
