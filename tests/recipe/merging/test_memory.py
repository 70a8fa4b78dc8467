"""Memory of a merge does not grow with its models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

SCRIPT = """
import sys
from pluria import Merge, merge_files
base, *models = sys.argv[2:]
merge_files(Merge("ties", tuple(models), base, options={"spec": "mergekit"}), sys.argv[1], threads=2)
# Not ru_maxrss, which begins with the peak of the process that started this one.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak(folder: Path, elements: int) -> float:
    """Megabytes that a merge of a base and two models of one large tensor takes at most, imports included."""
    folder.mkdir()
    paths = [str(folder / f"{seed}.safetensors") for seed in range(3)]
    for seed, path in enumerate(paths):
        draw = torch.Generator().manual_seed(seed)
        save_file({"w": torch.randn(elements, generator=draw).bfloat16()}, path)
    command = [sys.executable, "-c", SCRIPT, str(folder / "out.safetensors"), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=240)
    for path in folder.iterdir():
        path.unlink()
    return int(done.stdout) / 1e3


@pytest.mark.study
def test_twenty_times_larger_models_take_no_more_memory(tmp_path: Path) -> None:
    small, large = peak(tmp_path / "small", 5_000_000), peak(tmp_path / "large", 100_000_000)
    assert large < small + 40  # three models of 200 MB each
    assert large < 600
