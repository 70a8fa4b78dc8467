"""The written table of networks, by the names recipes use."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from pluria.zoo.cnn import small_cnn
from pluria.zoo.lookup import call
from pluria.zoo.mlp import mlp
from pluria.zoo.resnet import cifar_resnet
from pluria.zoo.vit import small_vit

NETWORKS: Mapping[str, Callable[..., nn.Module]] = {
    "cifar_resnet": cifar_resnet,
    "mlp": mlp,
    "small_cnn": small_cnn,
    "small_vit": small_vit,
}


def network(name: str, /, *, seed: int = 0, **arguments: Any) -> nn.Module:
    """Build a network, in evaluation mode: `network("cifar_resnet", depth=56)`.

    Its starting parameters follow `seed` alone; the global random generator is left as it was. ValueError with the
    nearest name for an unknown network, and with the accepted arguments for a wrong one.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return call(NETWORKS, name, arguments, what="network").eval()
