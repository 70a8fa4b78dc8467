"""Predictions of eight networks by others on the CIFAR-10 test images, row-aligned: log-probabilities `[8, 10000, 10]`.

The files come from four places. That their rows are the same images is checked: each network has the error its authors'
rows give, which a wrong order would turn into nine in ten.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

ERRORS = {
    "ResNet-20": 0.0827,
    "ResNet-32": 0.0737,
    "ResNet-56": 0.0661,
    "ResNet-18": 0.0582,
    "ResNet-18, distilled": 0.0527,
    "WRN-16-4": 0.0891,
    "LeNet-5": 0.4692,
    "label-errors model": 0.0706,
}
"""The networks in their order, and what each gets wrong."""

FAMILIES = ("akamaster",) * 3 + ("distillation",) * 2 + ("netcal",) * 2 + ("label errors",)
"""Who trained each network: the groups of the two-tier pool."""


@dataclass(frozen=True, eq=False)
class Predictions:
    """Members' log-probabilities `[K, N, C]` in float64, classes `[N]`, and the members' names and groups."""

    log_probs: Tensor
    y: Tensor
    names: tuple[str, ...]
    groups: tuple[str, ...]

    def members(self, chosen: list[int]) -> Predictions:
        """Some of the networks, in this order."""
        names, groups = (tuple(values[k] for k in chosen) for values in (self.names, self.groups))
        return Predictions(self.log_probs[chosen], self.y, names, groups)


def read(data: Path) -> Predictions:
    """The eight networks of the folder `data`; ValueError where one has another error than it should."""
    files = {
        name: np.load(data / path)
        for name, path in {
            "resnets": "cifar10_resnet_logits/logits.npz",
            "distillation": "cifar10_kd_probs/probs.npz",
            "netcal": "netcal_predictions/cifar10.npz",
            "label errors": "label_errors/cifar10_test_set.npz",
        }.items()
    }
    probs = [
        files["distillation"]["resnet18"],
        files["distillation"]["resnet18_distilled_from_resnext"],
        files["netcal"]["wideresnet-16-4"],
        files["netcal"]["lenet-5"],
        files["label errors"]["probs"],
    ]
    outputs = [*files["resnets"]["test"].astype(np.float64), *(np.log(p.astype(np.float64)) for p in probs)]
    labels = [files[name][key].astype(np.int64) for name, key in LABELS.items()]
    if not all((one == labels[0]).all() for one in labels):
        raise ValueError("the files disagree about the labels: their rows are not the same images")
    found = Predictions(
        torch.from_numpy(np.stack(outputs)).log_softmax(-1), torch.from_numpy(labels[0]), tuple(ERRORS), FAMILIES
    )
    check(found)
    return found


LABELS = {"resnets": "y_test", "netcal": "y", "label errors": "y"}
"""Where labels are given; the two networks of the distillation have none and are checked by their errors."""


def check(predictions: Predictions) -> None:
    """ValueError unless every network makes the errors it is known for, to one image."""
    for name, rows in zip(predictions.names, predictions.log_probs, strict=True):
        error = float((rows.argmax(-1) != predictions.y).double().mean())
        if abs(error - ERRORS[name]) > 1.5e-4:
            raise ValueError(
                f"{name} has an error of {error:.4f}, not {ERRORS[name]:.4f}: are its rows in another order?"
            )
