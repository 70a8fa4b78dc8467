"""Two problems to search: one with a planted best ensemble, and a small network with batch norm on little pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from recipe.tiny import plain, write_data, write_network

SPREAD = 0.8


class Half(nn.Module):
    """Knows one of the two bits that make a class: log p(bit | its feature), and nothing of the other bit."""

    def __init__(self, bit: int = 0) -> None:
        super().__init__()
        signs = torch.tensor([-1.0, -1.0, 1.0, 1.0] if bit == 0 else [-1.0, 1.0, -1.0, 1.0])
        self.head = nn.Linear(2, 4, bias=False)
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.weight[:, bit] = signs / SPREAD**2

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x)


def planted(folder: Path, rows: int = 800) -> dict[str, Any]:
    """Two networks that know one bit each: together, multiplied, they are the best answer there is."""
    draw = np.random.default_rng(0)
    y = np.arange(rows) % 4
    bits = np.stack([y // 2, y % 2], 1) * 2 - 1
    x = bits + SPREAD * draw.normal(size=(rows, 2))
    np.savez(folder / "planted.npz", x=x.astype("float32"), y=y)
    networks = {}
    for bit, name in enumerate(("left", "right")):
        save_file(Half(bit).state_dict(), folder / f"{name}.safetensors")
        networks[name] = {"model": "search.tiny:Half", "arguments": {"bit": bit},
                          "checkpoint": str(folder / f"{name}.safetensors")}  # fmt: skip
    every = [["left"], ["right"], ["left", "right"]]
    return {
        "networks": networks,
        "data": {"reader": "arrays", "arguments": {"path": str(folder / "planted.npz")}},
        "arms": [
            {"method": "isotropic", "std": 2.0, "members": 4, "each": {"networks": every}},
            {"method": "full_precision", "each": {"networks": every}},
        ],
        "threads": 1,
    }


def pictures(folder: Path, **changes: Any) -> dict[str, Any]:
    """Rounded members, refreshed ones, ones with feedback and ones with views of one small network."""
    write_network(folder / "net.safetensors")
    write_data(folder / "data.npz", rows=200)
    plainly = {"members": 4, "format": "int3"}
    arms = [
        {"method": "low_precision", **plainly, "refresh": False},
        {"method": "low_precision", **plainly, "refresh": True},
        {"method": "compensated", **plainly, "refresh": True, "views": ["identity", "left"]},
        {"method": "full_precision", "views": ["identity", "left", "right"]},
    ]
    return plain(folder, **{"arms": arms, "unlabelled_rows": 20, "views": ["identity", "left"], **changes})
