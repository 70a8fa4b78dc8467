"""The networks that are timed, with batches for each: speed does not depend on what they have learnt.

ResNet-20 has the public weights where they lie in `data/cifar10_resnets`; the others are of random numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from pluria.zoo import network

WEIGHTS = Path("data/cifar10_resnets/resnet20.safetensors")


@dataclass(frozen=True)
class Case:
    """A network and batches of its inputs, as a user runs it: evaluation mode, eager, float32, default memory order."""

    model: nn.Module
    batches: list[Any]
    what: str


def case(name: str, rows: int) -> Case:
    """`rows` images for `resnet20` and `vit`, sequences of 128 tokens for `bert`, of 512 for `long`."""
    torch.manual_seed(0)
    about = name
    if name == "resnet20":
        model, size, shape = network("cifar_resnet", depth=20, classes=10), 256, (3, 32, 32)
        if WEIGHTS.is_file():
            model.load_state_dict(load_file(WEIGHTS))
        about += ", public weights" if WEIGHTS.is_file() else ", random weights"
    elif name == "vit":
        model = network("small_vit", size=32, channels=3, patch=4, classes=10, dim=192, depth=6, heads=3)
        size, shape = 64, (3, 32, 32)
    else:
        return _encoder(rows, 512 if name == "long" else 128)
    batches = list(torch.randn(rows, *shape).split(size))
    return Case(model.eval(), batches, f"{about}, {rows} images in batches of {size}")


def _encoder(rows: int, tokens: int) -> Case:
    from transformers import BertConfig, BertForSequenceClassification

    model = BertForSequenceClassification(BertConfig(num_labels=4)).eval()
    words = torch.randint(0, 30000, (rows, tokens))
    count = sum(value.numel() for value in model.parameters())
    what = f"BERT-base-sized encoder of {count / 1e6:.0f} M parameters, {rows} sequences of {tokens} tokens"
    return Case(model, list(words.split(8)), what)
