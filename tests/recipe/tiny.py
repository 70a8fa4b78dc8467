"""A tiny task with its recipe: 4 x 4 pictures of three classes, a network of a few hundred weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from pluria.recipe.reading import make_recipe
from pluria.recipe.schema import Recipe
from pluria.zoo.networks import network

CLASSES = 3
ARGUMENTS: dict[str, Any] = {"channels": 1, "size": 4, "classes": CLASSES, "width": 4}


def write_data(path: Path, rows: int = 40, seed: int = 0) -> Path:
    """An .npz file of pictures [N, 1, 4, 4], a class's own pixel a little brighter."""
    draw = np.random.default_rng(seed)
    y = np.arange(rows) % CLASSES
    x = draw.normal(size=(rows, 1, 4, 4)).astype("float32")
    x[np.arange(rows), 0, y, y] += 2.0
    np.savez(path, x=x, y=y)
    return path


def write_network(path: Path, seed: int = 3, **changes: Any) -> nn.Module:
    """A checkpoint of a network with random weights, and the network."""
    made = network("small_cnn", seed=seed, **{**ARGUMENTS, **changes})
    save_file(made.state_dict(), path)
    return made


def plain(folder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe as data: the network and the rows lie in `folder`; `changes` replace keys of the first level."""
    held: dict[str, Any] = {
        "network": {
            "model": "small_cnn",
            "arguments": dict(ARGUMENTS),
            "checkpoint": str(folder / "net.safetensors"),
        },
        "data": {"reader": "arrays", "arguments": {"path": str(folder / "data.npz")}},
        "arms": [{"method": "low_precision", "members": 3, "format": "int3", "refresh": False}],
        "views": [],
        "batch": 16,
        "threads": 1,
    }
    return copy.deepcopy({**held, **changes})


def write_all(folder: Path) -> Path:
    """The checkpoint and the rows that `plain` names, and other rows to train on."""
    write_network(folder / "net.safetensors")
    write_data(folder / "data.npz")
    write_data(folder / "train.npz", seed=1)
    return folder


def recipe(folder: Path, **changes: Any) -> Recipe:
    """The checked recipe."""
    return make_recipe(plain(folder, **changes))


def dense() -> nn.Module:
    """Three classes at every pixel, with a batch norm."""
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, CLASSES, 1))


def flat() -> nn.Module:
    """Batch norm over features: a batch of one example has no variance."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))


def half() -> nn.Module:
    """A network in bfloat16."""
    return nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)).to(torch.bfloat16)


def write_dense(folder: Path) -> Path:
    """The dense network and pictures with a target at every pixel, some of them ignored."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(dense().state_dict(), folder / "dense.safetensors")
    draw = np.random.default_rng(0)
    y = draw.integers(0, CLASSES, (12, 4, 4))
    y[::2, 0] = -100
    np.savez(folder / "dense.npz", x=draw.normal(size=(12, 1, 4, 4)).astype("float32"), y=y)
    return folder
