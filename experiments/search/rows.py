"""Test images of CIFAR-10 from a place on, so that a search can have rows that no other search has seen."""

from __future__ import annotations

from typing import Any

from pluria.zoo.dataset import Dataset
from pluria.zoo.readers import read


def images(*, start: int, count: int, **arguments: Any) -> Dataset:
    """`count` of the official test images, from number `start` on; other arguments are those of `cifar10`."""
    return read("cifar10", split="test", **arguments).take(slice(start, start + count))
