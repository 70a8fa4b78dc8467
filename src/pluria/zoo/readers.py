"""The written table of data set readers, by the names recipes use."""

from collections.abc import Callable, Mapping
from typing import Any

from pluria.zoo.arrays import arrays
from pluria.zoo.cifar import cifar10, cifar100
from pluria.zoo.dataset import Dataset
from pluria.zoo.digits import digits
from pluria.zoo.folder import folder
from pluria.zoo.idx import idx
from pluria.zoo.lookup import call

READERS: Mapping[str, Callable[..., Dataset]] = {
    "arrays": arrays,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "digits": digits,
    "folder": folder,
    "idx": idx,
}


def read(name: str, /, **arguments: Any) -> Dataset:
    """Read a data set: `read("cifar10", path="data", split="test")`.

    ValueError with the nearest name for an unknown reader, and with the accepted arguments for a wrong one; DataError
    where the data are missing or malformed.
    """
    return call(READERS, name, arguments, what="reader")
