"""What experiments over seeds share: a run that goes on where it stopped, and the cells of their tables."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch

Found = dict[str, Any]


def spread(values: Sequence[float], digits: int, scale: float = 1, sign: str = "") -> str:
    """Mean ± standard deviation over seeds, the mean alone of one seed."""
    wide = f" ± {stdev(values) * scale:.{digits}f}" if len(values) > 1 else ""
    return f"{fmean(values) * scale:{sign}.{digits}f}{wide}"


def lower(gaps: Sequence[float]) -> list[str]:
    """Differences seed by seed: their mean with its standard error, and in how many seeds they are below zero."""
    wide = f" ± {stdev(gaps) / len(gaps) ** 0.5:.4f}" if len(gaps) > 1 else ""
    return [f"{fmean(gaps):+.4f}{wide}", f"{sum(gap < 0 for gap in gaps)}/{len(gaps)}"]


def grow(about: str | None, out: Path, seeds: int, one: Callable[[int], Any], told: Callable[[Found], str]) -> None:
    """Measure the seeds that the file lacks, each kept at once, and print what is told of all."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--out", type=Path, default=out)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found: Found = json.loads(given.out.read_text()) if given.out.exists() else {"seeds": []}
    found["machine"] = f"{platform.processor() or platform.machine()}, torch {torch.__version__}"
    found["date"] = time.strftime("%Y-%m-%d")
    for seed in range(len(found["seeds"]), given.seeds):
        found["seeds"].append(one(seed))
        given.out.write_text(json.dumps(found) + "\n")
    print(told(found))
