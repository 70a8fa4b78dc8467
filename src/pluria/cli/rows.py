"""A network by its words, and rows that it is run on, for commands that take both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pluria.cli.ensembles import data_spec

if TYPE_CHECKING:
    from torch import nn

    from pluria.recipe.parts import Network
    from pluria.zoo import Dataset


def network_for(spec: Network, *, trust: bool, built: bool = False) -> nn.Module:
    """The network with its checkpoint, or with `built` as it was built."""
    from pluria.recipe.resolve import built as build
    from pluria.recipe.resolve import load_network

    return build(spec, trust=trust) if built else load_network(spec, trust=trust)[0]


def rows_for(network: nn.Module, data: str, arguments: dict[str, Any], count: int) -> Dataset:
    """The first `count` rows of data that the network takes."""
    from pluria.recipe.check import check_fits
    from pluria.recipe.resolve import dataset

    held = dataset(data_spec(data, arguments))
    check_fits(network, held)
    return held.take(slice(0, count))
