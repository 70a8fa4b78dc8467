"""By how much a process of its own grows: what tests of memory ask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the process's size is read from /proc")


def growth(folder: str, *works: str) -> list[int]:
    """Bytes by which `growth.py` of a folder of tests says that it grows in each of these works, in this order.

    What takes little comes first, as what takes much leaves free memory in hand. Memory is given back as soon as it is
    free: what lies free between pieces in use differs from run to run.
    """
    script, env = Path(__file__).parent / folder / "growth.py", {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run([sys.executable, str(script), *works], capture_output=True, text=True, check=True, env=env)
    return [int(line) for line in done.stdout.split()]
