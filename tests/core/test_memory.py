"""Freed memory is used again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

CODE = """
import ctypes, sys, torch
from pluria.core.memory import keep_freed

class Blocks(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks mapped rest a b c d e".split()]

count = ctypes.CDLL(None).mallinfo2
count.restype = Blocks
if sys.argv[1] == "keep":
    keep_freed()
before = count().mapped
held = torch.empty(5 * 10**6)
print(count().mapped - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have their own ways")
@pytest.mark.parametrize(("how", "mapped"), [("keep", 0), ("default", 1)])
def test_a_block_of_20_mb_is_taken_from_memory_that_stays(how: str, mapped: int) -> None:
    """By default it is asked of the system, and given back as soon as it is freed."""
    done = subprocess.run([sys.executable, "-c", CODE, how], capture_output=True, text=True, check=True)
    assert int(done.stdout) == mapped
