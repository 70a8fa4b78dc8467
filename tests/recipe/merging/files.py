"""Checkpoints to merge, and a merge of them as a process of its own."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model of so many layers."""
    each = {"w": (300, 701), "norm": (300,)}
    return {f"layers.{i}.{name}": shape for i in range(layers) for name, shape in each.items()} | {"emb": (70, 9)}


SHAPES = shapes(3)

SCRIPT = """
import sys
from pluria import Merge, merge_files
from pluria.store import receiving
receiving.COMMIT = 2**16
method, out, threads, *models = sys.argv[1:]
print("ready", flush=True)
merge_files(Merge(method, tuple(models[1:]), models[0]), out, threads=int(threads))
"""


def params(seed: int, dtype: torch.dtype = torch.bfloat16, layers: int = 3) -> dict[str, Tensor]:
    """One model: small changes of a common one."""
    base, draw = torch.Generator().manual_seed(99), torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(shape, generator=base) + 0.05 * torch.randn(shape, generator=draw)).to(dtype)
        for name, shape in shapes(layers).items()
    } | {"bn.num_batches_tracked": torch.tensor(seed)}


def write(folder: Path, count: int = 3, dtype: torch.dtype = torch.bfloat16, layers: int = 3) -> list[str]:
    """`count` safetensors files."""
    paths = [str(folder / f"{seed}.safetensors") for seed in range(count)]
    for seed, path in enumerate(paths):
        save_file(params(seed, dtype, layers), path, {"format": "pt"})
    return paths


def start(
    out: Path, models: list[str], *, method: str = "task_arithmetic", threads: int = 2, **options: object
) -> subprocess.Popen[str]:
    """A merge in a process; the first model is the base."""
    command = [sys.executable, "-c", SCRIPT, method, str(out), str(threads), *models]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload,no-any-return]


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
