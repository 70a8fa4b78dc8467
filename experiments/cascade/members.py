"""The kept outputs of a run as sets of members, each with its order, its seeds and what a forward costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pluria.recipe.folder import RunFolder
from pluria.recipe.reading import read_recipe
from pluria.recipe.resolve import data_rows
from pluria.zoo import network

NETWORKS = ("resnet20", "resnet32", "resnet56")
PARTS = ("calibration", "figures", "outside-CIFAR-100", "outside-MNIST")
RECIPE = Path(__file__).parent / "recipe.yaml"


@dataclass(frozen=True)
class Set:
    """Members of an ensemble: names, million multiply-adds of a forward, logits `[K, N, C]` of each part."""

    names: tuple[str, ...]
    macs: tuple[float, ...]
    logits: dict[str, Tensor]

    def take(self, order: Sequence[int]) -> Set:
        """Some members in some order."""
        logits = {part: one[list(order)] for part, one in self.logits.items()}
        return Set(tuple(self.names[i] for i in order), tuple(self.macs[i] for i in order), logits)


def million_macs(name: str) -> float:
    """Multiply-adds of one image in millions."""
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        network("cifar_resnet", depth=int(name.removeprefix("resnet")))(torch.zeros(1, 3, 32, 32))
    return counted.get_total_flops() / 2e6


def targets() -> dict[str, Tensor]:
    """Classes of the calibration and of the figure rows."""
    rows = data_rows(read_recipe(RECIPE))
    return {"calibration": rows.calibration.targets, "figures": rows.figures.targets}


def kept(folder: Path, arm: str, networks: Sequence[str], members: int, *, seed: int = 0) -> Set:
    """The first members of each network of one arm, network after network."""
    places = []
    for name in networks:
        (found,) = (folder / "predictions" / name).glob(f"{arm}-*-seed{seed}")
        places.append(f"{name}/{found.name}")
    held = RunFolder(folder)
    logits = {part: held.outputs(places, members, part) for part in PARTS}
    names = tuple(f"{name}, {at + 1}" for name in networks for at in range(members))
    return Set(names, tuple(million_macs(name) for name in networks for _ in range(members)), logits)
