"""backend="auto": the ways to run members, timed on the user's first batch; the fastest that agrees is taken.

    error = |outputs - reference| / |reference - its mean|     over the first and the last member, on one whole batch
    taken: the fastest of those with error <= tolerance; the reference is the plain loop in float32

A way that disagrees, fails or runs out of memory is dropped with a line that says so. Pieces of a batch are tried too:
what agrees in pieces may be run in pieces. So are small batches together, with the way that was best.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.predict.backends import Name, Run, Storage, backend, floating, noted
from pluria.predict.pieces import apart, joined, rows, together

PIECES = (128, 64, 32)
"""Examples at a time that are tried besides the whole batch."""
MOST = 256
"""Examples of small batches that are tried together, and half as many."""
TRYING = 100
"""How many times as much work as a trial of small batches together there has to be."""
REPEATS = 2
COMPILING = 120.0
"""Seconds of work below which nothing is compiled: compiling may take as long."""
LOG = logging.getLogger("pluria.predict")


@dataclass(frozen=True)
class Choice:
    """What was taken, and why. `seconds` is of one member on the first batch, `reference` that of the plain loop.

    `batch` is how many examples are run at a time, of one batch or of neighbouring ones; None for batches as they are.
    `error` is that of the formula above; `tried` has a line for each way. Give it to `predict` as `backend` to run the
    same way again.
    """

    backend: Name
    batch: int | None = None
    seconds: float | None = None
    reference: float | None = None
    error: float = 0.0
    tolerance: float = 0.0
    tried: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.batch is not None and self.batch < 1:
            raise ValueError(f"one example or more is run at a time, or None for batches as they are; got {self.batch}")

    def __str__(self) -> str:
        pieces = "batches as they are" if self.batch is None else f"{self.batch} examples at a time"
        return "\n".join([f"backend {self.backend}, {pieces}", *(f"  {line}" for line in self.tried)])


@dataclass(frozen=True)
class Trial:
    """What ways are tried on: two members, the batches that each of them sees, and what they should give."""

    ends: tuple[int, int]
    each: Sequence[Sequence[Any]]
    output: Callable[[Any], Tensor]
    wanted: Tensor | None = None

    def outputs(self, run: Run) -> Tensor:
        """Outputs of both members `[2, n, ...]`."""
        both = zip(self.ends, self.each, strict=True)
        return torch.cat([torch.cat([run([member], [x], self.output) for x in seen], 1) for member, seen in both])

    def seconds(self, run: Run, together: Sequence[int] | None) -> float:
        """The best time of a member; members take turns, so that each run pays for writing one."""
        best = float("inf")
        for turn in range(REPEATS):
            members = [self.ends[turn % 2]] if together is None else together
            start = time.perf_counter()
            for x in self.each[turn % 2]:
                run(members, [x] * len(members), self.output).cpu()  # a GPU answers before it is done
            best = min(best, (time.perf_counter() - start) / len(members))
        return best


def fastest(
    model: nn.Module,
    ensemble: Ensemble,
    each: Sequence[Sequence[Any]],
    output: Callable[[Any], Tensor],
    storage: Storage,
    *,
    block: int,
    batches: int | None,
    tolerance: float,
) -> Choice:
    """The fastest way to run members that agrees with the float32 loop.

    each        the inputs that the first and the last member see of the first batch, and of those behind it that
                may be run together with it
    batches     how many there are in all, None if that is not known: says whether compiling can pay
    """
    if (kind := storage.dtype or floating(model)) is not torch.float32:
        return Choice("loop", tried=(f"nothing else tried: the network is in {_word(kind)}, not float32",))
    ensemble = noted(ensemble)  # once, for all ways
    trial = Trial((ensemble.members[0], ensemble.members[-1]), [seen[:1] for seen in each], output)
    with torch.inference_mode():
        plain = backend("loop", model, ensemble, storage)
        trial = replace(trial, wanted=trial.outputs(plain))
        base = trial.seconds(plain, None)
        lines = [f"loop: {1e3 * base:.1f} ms for a member on the first batch; the reference"]
        found = [Choice("loop", None, base, base)]
        for name in ("channels_last", "bfloat16", "compiled", "vmap"):
            work = None if batches is None else min(_seconds(one) for one in found) * len(ensemble) * batches
            if reason := _needless(name, work, block):
                lines.append(f"{name}: not tried, {reason}")
                continue
            make = partial(backend, name, model, ensemble, storage)
            together = ensemble.members[:block] if name == "vmap" else None
            found += _tried(name, make, trial, together, tolerance, lines)
        # A little faster is no reason to leave the bits of the reference.
        best = min(found, key=lambda one: _seconds(one) if one.backend != "loop" else 0.95 * base)
        work = (batches or 0) * len(ensemble)
        if sizes := _sizes(best, each[0], work):
            several = replace(trial, each=each, wanted=None)
            run = backend(best.backend, model, ensemble, storage)
            best = _larger(best, run, replace(several, wanted=several.outputs(plain)), sizes, tolerance, lines)
    chosen = replace(best, reference=base, tolerance=tolerance, tried=tuple(lines))
    LOG.info("%s", chosen)
    return chosen


def _needless(name: Name, work: float | None, block: int) -> str | None:
    """Why a way is not worth trying; `work` is how many seconds all members take by the fastest way so far."""
    if name == "vmap" and block == 1:
        return "blocks have one member"
    if name == "compiled" and (work is None or work < COMPILING):
        known = "how much work there is is not known" if work is None else f"all of it takes about {work:.0f} s"
        return f"{known}, and compiling pays beyond {COMPILING:.0f} s"
    return None


def _tried(
    name: Name,
    make: Callable[..., Run],
    trial: Trial,
    together: Sequence[int] | None,
    tolerance: float,
    lines: list[str],
) -> list[Choice]:
    """What one way gave with whole batches and in pieces, as far as it agrees."""
    count, found = rows(trial.each[0][0]) or 0, []
    for size in [None, *(size for size in PIECES if size < count and name != "vmap")]:
        what = name if size is None else f"{name}, {size} at a time"
        try:
            run = make(batch=size)
            error = distance(trial.outputs(run), trial.wanted)
            seconds = trial.seconds(run, together)
        # Whatever a network does in a form that it was not written for, the plain loop still serves it.
        except Exception as problem:
            lines.append(_dropped(what, problem))
            break
        lines.append(f"{what}: {1e3 * seconds:.1f} ms, {_verdict(error, tolerance)}")
        if error <= tolerance:
            found.append(Choice(name, size, seconds, error=error))
    return found


def _sizes(best: Choice, batches: Sequence[Any], work: int) -> list[int]:
    """Numbers of examples that are worth trying together; `work` is how many forwards of a batch there are in all."""
    count, total = rows(batches[0]) or 0, sum(rows(x) or 0 for x in batches)
    enough = best.batch is None and best.backend != "vmap" and work >= TRYING * len(batches)
    return [size for size in (MOST // 2, MOST) if enough and 2 * count <= size <= total]


def _larger(best: Choice, run: Run, trial: Trial, sizes: Sequence[int], tolerance: float, lines: list[str]) -> Choice:
    """The best way with neighbouring batches together, where that is faster and agrees."""
    alone = quickest = trial.seconds(run, None)
    for size in sizes:
        what = f"{best.backend}, batches together up to {size}"
        each = [[joined(some) for some in together(seen, size, lambda x: x)] for seen in trial.each]
        larger = replace(trial, each=each)
        try:
            apart(outputs := larger.outputs(run), trial.each[0])
            error, seconds = distance(outputs, trial.wanted), larger.seconds(run, None)
        except Exception as problem:
            lines.append(_dropped(what, problem))
            continue
        times = f"{1e3 * seconds:.1f} ms for {len(trial.each[0])} batches, {1e3 * alone:.1f} ms one by one"
        lines.append(f"{what}: {times}, {_verdict(error, tolerance)}")
        if error <= tolerance and seconds < 0.95 * quickest:
            share = seconds / quickest
            best, quickest = replace(best, batch=size, seconds=_seconds(best) * share, error=error), seconds
    return best


def _verdict(error: float, tolerance: float) -> str:
    return f"error {error:.1e}" + ("" if error <= tolerance else f", dropped: more than {tolerance:.1e}")


def _dropped(what: str, problem: Exception) -> str:
    said = str(problem).strip() or "no message"
    return f"{what}: dropped, {type(problem).__name__}: {said.splitlines()[0][:160]}"


def _seconds(choice: Choice) -> float:
    return float("inf") if choice.seconds is None else choice.seconds


def distance(outputs: Tensor, reference: Tensor | None) -> float:
    """|outputs - reference| / |reference - its mean|, infinite where shapes differ or outputs are not finite."""
    if reference is None or outputs.shape != reference.shape or not bool(torch.isfinite(outputs).all()):
        return float("inf")
    one, other = outputs.to(torch.float64), reference.to(torch.float64)
    spread = float((other - other.mean()).norm()) or float(other.norm()) or 1.0
    return float((one - other).norm()) / spread


def _word(dtype: torch.dtype | None) -> str:
    return "several dtypes" if dtype is None else str(dtype).removeprefix("torch.")
