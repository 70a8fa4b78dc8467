"""Seconds of work on a GPU: events around each run, a cold cache before it, ways taking turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

COLD = 2**28
"""Bytes written before each run, so that no weight is found in a cache; more than any GPU caches."""

Work = Callable[[], object]


@dataclass(frozen=True)
class Time:
    """Median seconds, and the quickest and slowest run."""

    median: float
    best: float
    worst: float


def interleaved(ways: Mapping[str, Work], *, repeats: int, device: torch.device) -> dict[str, Time]:
    """Times of ways that take turns, after one turn that is not counted (it compiles)."""
    cold = torch.empty(COLD if device.type == "cuda" else 1, dtype=torch.uint8, device=device)
    seen: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, work in ways.items():
            cold.zero_()
            seconds = _once(work, device)
            if turn:
                seen[name].append(seconds)
    return {name: Time(statistics.median(all), min(all), max(all)) for name, all in seen.items()}


def no_gpu() -> str | None:
    """Why nothing can be measured, None where there is a GPU and Triton imports."""
    if not torch.cuda.is_available():
        return "no GPU: nothing is measured. This benchmark needs a CUDA device and a build of torch for it"
    try:
        import triton  # noqa: F401
    except ImportError as error:
        return f"no Triton: nothing is measured ({error})"
    return None


def about() -> dict[str, str]:
    """What the figures were measured on."""
    import triton

    name = torch.cuda.get_device_name()
    return {"device": name, "cuda": str(torch.version.cuda), "torch": torch.__version__, "triton": triton.__version__}


def _once(work: Work, device: torch.device) -> float:
    if device.type != "cuda":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end) / 1000
