"""What is judged: members put together from the answers of one seed, or of several, and what they cost to train."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from answers import DRAWS, Answers

import pluria

Told = Mapping[int, Mapping[str, Answers]]
CYCLES = 5
"""Snapshots of a run, and groups of samples of cyclical SGHMC."""


@dataclass(frozen=True)
class Arm:
    """Members and their answers, after backward passes of `runs` runs; `line` is theirs in the pictures."""

    name: str
    answers: Answers
    runs: float
    line: str = ""
    rounded: bool = False


def arms(told: Told, seed: int) -> Iterator[Arm]:
    """All of one seed; deep ensembles begin with this seed's network."""
    own = told[seed]
    yield Arm("single", own["end"], 1, "deep ensemble")
    yield Arm("single, nearest INT-5", own["end, nearest INT-5"], 1)
    for count in (1, 2, 4, 8):
        line = "deep ensemble" if count == 4 else ""
        yield Arm(f"single, INT-5 × {count}", own["end, INT-5"].first(count), 1, line, rounded=True)
    yield from apart(told, seed)
    yield from cyclical(own, "sse", "SSE")
    yield from cyclical(own, "csghmc", "cyclical SGHMC")
    yield Arm(f"FGE × {len(own['fge'].ensemble)}", own["fge"], 1, "FGE")
    yield Arm("SWA", own["swa"], 1, "SWAG")
    yield Arm(f"SWAG × {len(own['swag'].ensemble)}", own["swag"], 1, "SWAG")
    yield Arm("SWA, INT-5 × 8", own["swa, INT-5"], 1, "SWAG", rounded=True)
    yield Arm("IVON, its mean", own["ivon_mean"], 1, "IVON")
    yield Arm(f"IVON × {len(own['ivon'].ensemble)}", own["ivon"], 1, "IVON")
    yield Arm("IVON, its mean, INT-5 × 8", own["ivon_mean, INT-5"], 1, "IVON", rounded=True)


def apart(told: Told, seed: int) -> Iterator[Arm]:
    """Networks trained apart, whole and rounded."""
    order, line = [seed, *(other for other in told if other != seed)], "deep ensemble"
    for size in range(2, len(told) + 1):
        yield Arm(f"{line} × {size}", joined([told[one]["end"] for one in order[:size]]), size, line)
        rounded = joined([told[one]["end, INT-5"].first(4) for one in order[:size]])
        yield Arm(f"{line} × {size}, INT-5 × {4 * size}", rounded, size, line, rounded=True)


def cyclical(own: Mapping[str, Answers], name: str, title: str) -> Iterator[Arm]:
    """After every cycle: what there is until then."""
    whole, rounded = own[name], own[f"{name}, INT-5"]
    total = len(whole.ensemble)
    for cycle in range(1, CYCLES + 1):
        count, runs = total * cycle // CYCLES, cycle / CYCLES
        yield Arm(f"{title} × {count}", whole.first(count), runs, title)
        places = [draw * total + member for draw in range(DRAWS[name]) for member in range(count)]
        yield Arm(f"{title}, INT-5 × {len(places)}", rounded.take(places), runs, title, rounded=True)


def joined(several: list[Answers]) -> Answers:
    """End to end."""
    return Answers(pluria.join(*(one.ensemble for one in several)), torch.cat([one.logits for one in several]))
