"""Tasks for mappers, in a module of their own: a worker reads them again by their names."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch


def square(x: int) -> int:
    return x * x


class Own(Exception):
    def __init__(self, one: int, other: int) -> None:
        super().__init__("cannot be pickled: it takes two")


def refuse_oddly(x: int) -> int:
    raise Own(1, 2)


def unsendable(x: int) -> object:
    return lambda: x


class Unreadable:
    """An item that a worker cannot read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return refuse, ("no such thing",)


def refuse(what: str) -> None:
    raise TypeError(what)


def threads_but_three(x: int) -> int:
    refuse_three(x)
    return torch.get_num_threads()


def refuse_three(x: int) -> int:
    if x == 3:
        raise ValueError("no 3")
    return x


@dataclass(frozen=True)
class DieOnce:
    """The item, the threads and a draw; earlier items take longer. On item 1 it kills its worker, the first time."""

    mark: Path

    def __call__(self, x: int) -> tuple[int, int, list[float]]:
        if x == 1 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.2 / (1 + x))
        drawn = torch.randn(3, generator=torch.Generator().manual_seed(x))
        return x, torch.get_num_threads(), drawn.tolist()
