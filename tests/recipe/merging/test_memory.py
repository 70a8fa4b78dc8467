"""Memory of a merge does not grow with its models, and an element costs a few copies of its bytes."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

SCRIPT = """
import sys
from pluria import Merge, merge_files
method, out, *models = sys.argv[1:]
base, options = (models.pop(0), {"spec": "mergekit"}) if method == "ties" else (None, {})
merge_files(Merge(method, tuple(models), base, options=options), out, threads=2)
# Not ru_maxrss, which begins with the peak of the process that started this one.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def models(folder: Path, elements: int, tensors: int = 1) -> list[str]:
    """Three models of bfloat16, a million numbers of each tensor drawn and said again."""
    folder.mkdir()
    paths = [str(folder / f"{seed}.safetensors") for seed in range(3)]
    for seed, path in enumerate(paths):
        draw = torch.Generator().manual_seed(seed)
        drawn = {f"w{i}": torch.randn(1_000_000, generator=draw).bfloat16() for i in range(tensors)}
        save_file({name: some.repeat(elements // 1_000_000) for name, some in drawn.items()}, path)
    return paths


def merged(method: str, paths: list[str]) -> tuple[float, float]:
    """Megabytes that a merge takes at most, imports included, and its seconds on a processor."""
    command = [sys.executable, "-c", SCRIPT, method, str(Path(paths[0]).parent / "out.safetensors"), *paths]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return int(done.stdout) / 1e3, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def peak(folder: Path, elements: int) -> float:
    """Megabytes that a merge of a base and two models of one large tensor takes at most."""
    found, _ = merged("ties", models(folder, elements))
    for path in folder.iterdir():
        path.unlink()
    return found


@pytest.mark.study
def test_twenty_times_larger_models_take_no_more_memory(tmp_path: Path) -> None:
    small, large = peak(tmp_path / "small", 5_000_000), peak(tmp_path / "large", 100_000_000)
    assert large < small + 40  # three models of 200 MB each
    assert large < 600


@pytest.mark.study
def test_three_models_of_a_gigabyte_take_less_than_half_of_one(tmp_path: Path) -> None:
    """And the CPU of a merge is held against that of plain copies of the same bytes, on the same machine."""
    small, large = models(tmp_path / "small", 1_000_000), models(tmp_path / "large", 125_000_000, tensors=4)
    elements = 499_000_000 * 3
    some, room = torch.zeros(100_000_000, dtype=torch.bfloat16), torch.zeros(100_000_000, dtype=torch.bfloat16)
    before = time.process_time()
    for _ in range(5):
        room.copy_(some)
    copied = (time.process_time() - before) / 5e8
    for method, copies in (("linear", 60), ("ties", 160)):
        (_, start), (memory, seconds) = merged(method, small), merged(method, large)
        each = (seconds - start) / elements
        print(f"{method}: {memory:.0f} MB, {each * 1e9:.2f} ns an element and model; a copy {copied * 1e9:.2f} ns")
        assert memory < 500
        assert each < copies * copied
