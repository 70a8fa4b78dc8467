"""Memory that is freed and soon asked for again: on some machines the system takes longer to clear pages than
processors take to use them."""

from __future__ import annotations

from functools import cache

import torch

BLOCK = 2**25 - 2**16
"""Bytes: the largest block that glibc takes for a hint, less what it needs for itself."""


@cache
def keep_freed() -> None:
    """Free a large block, untouched and once, so that glibc keeps blocks up to that size, in a thread twice as much.

    Before, it gives pages back while little is free, and the system clears each anew when it is asked for more. A
    program that has freed a block of that size itself is already in this state. Other C libraries do not notice.
    """
    torch.empty(BLOCK, dtype=torch.uint8, device="cpu")
