"""Where a random word lives: a 64-bit key, and a counter of tensor, member and stream.

    key     = seed, or a hash of (seed, network's name) once a name is folded in
    counter = (element // 4, tensor id, group, stream); the word is number element % 4 of the four

A tensor's id is a 32-bit hash of its name, so the bits do not depend on the order of tensors, the device or shards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

ROUNDING, NORMAL, DROPOUT, MASK, MERGING, ORDER, TRAINING = 0, 1, 2, 4, 5, 6, 7
"""Streams: what a word is for. Numbers are part of the file format."""

ELEMENTS = 2**34
"""Largest number of elements of one tensor: the counter's first word holds element // 4."""

FACTORS = "\0factors"
"""Reserved tensor name: the coefficients of a low-rank draw are shared by all tensors."""


@dataclass(frozen=True)
class Key:
    """Root of every random address of one network.

    >>> Key(7).fold("resnet20") == Key(7).fold("resnet20")
    True
    >>> Key(7).fold("a") == Key(7).fold("b")
    False
    """

    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.seed, bool) or not isinstance(self.seed, int):
            raise TypeError(f"a seed is an integer; got {self.seed!r}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"a seed lies in 0..2^64-1; got {self.seed}")

    @property
    def words(self) -> tuple[int, int]:
        """The two 32-bit key words, low first."""
        return self.seed & 0xFFFFFFFF, self.seed >> 32

    def fold(self, name: str) -> Key:
        """The key of the network called `name`, so that equal tensor names in two networks get different noise."""
        digest = hashlib.blake2b(name.encode(), digest_size=8, key=self.seed.to_bytes(8, "little")).digest()
        return Key(int.from_bytes(digest, "little"))


def tensor_id(name: str) -> int:
    """Stable 32-bit id of a tensor's name."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")


def refuse_collisions(names: Iterable[str]) -> None:
    """Raise ValueError where two names of one network have the same id and would share their noise."""
    seen: dict[int, str] = {}
    for name in names:
        other = seen.setdefault(tensor_id(name), name)
        if other != name:
            raise ValueError(f"tensors {other!r} and {name!r} have the same 32-bit id; rename one of them")
