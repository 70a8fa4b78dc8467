"""Rows that a network is run on, for commands that take both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pluria.cli.ensembles import data_spec

if TYPE_CHECKING:
    from torch import nn

    from pluria.zoo import Dataset


def rows_for(network: nn.Module, data: str, arguments: dict[str, Any], count: int) -> Dataset:
    """The first `count` rows of data that the network takes."""
    from pluria.recipe.check import check_fits
    from pluria.recipe.resolve import dataset

    held = dataset(data_spec(data, arguments))
    check_fits(network, held)
    return held.take(slice(0, count))
