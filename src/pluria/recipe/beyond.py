"""What an arm is worth beyond the rows it was calibrated for: shifted rows, and rows of no known class.

shifted   scores with the pool and temperature of the clean calibration rows
outside   how well uncertainty tells outside rows from the figure rows: AUROC, and FPR at 95 % of them found

Both come with what they are worth against full precision on the same rows, with paired bootstrap intervals: the NLL
after temperature, and the AUROC of the entropy after temperature.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pluria.recipe.folder import RunFolder
from pluria.recipe.measure import Measured, scores
from pluria.recipe.outputs import Outputs
from pluria.recipe.plan import Job
from pluria.recipe.resolve import Rows
from pluria.score import (
    auroc,
    entropy,
    fpr_at,
    member_sums,
    mutual_information,
    nll,
    paired_bootstrap,
    paired_bootstrap_figure,
)

DRAWS = 200
"""Draws of the bootstrap of an AUROC, which sorts all rows on each."""


@dataclass(frozen=True)
class Beyond:
    """Figures of one job as plain data; for pairs the NLL after temperature `[N]` of every shifted set, and the entropy
    after temperature `[N, places]` of the figure rows and of every outside set.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    losses: dict[str, Tensor] = field(default_factory=dict)
    inside: Tensor | None = None
    outside: dict[str, Tensor] = field(default_factory=dict)


def beyond(job: Job, rows: Rows, folder: RunFolder, measured: Measured) -> Beyond:
    """What a job is worth on every shifted and every outside set of rows; nothing where the arm leaves them out."""
    if not job.arm.beyond:
        return Beyond()
    figures: dict[str, Any] = {}
    losses: dict[str, Tensor] = {}
    outside: dict[str, Tensor] = {}
    for name, part in rows.shifted.items():
        held = Outputs.of(outputs_of(job, folder, f"shifted-{name}"), part.targets)
        scaled = measured.answer(held)
        pair = {"scores": scores(held.pooled(), held.y), "scaled": scores(scaled, held.y)}
        figures.setdefault("shifted", {})[name] = pair
        losses[name] = held.by_example(nll(scaled, held.y))
    inside = _uncertainties(outputs_of(job, folder, "figures"), measured) if rows.outside else {}
    for name in rows.outside:
        outer = _uncertainties(outputs_of(job, folder, f"outside-{name}"), measured)
        told = {kind: _detected(inside[kind].flatten(), outer[kind].flatten()) for kind in inside}
        figures.setdefault("outside", {})[name] = told
        outside[name] = outer["entropy_scaled"]
    return Beyond(figures, losses, inside.get("entropy_scaled"), outside)


def differences(several: Sequence[Beyond], reference: Beyond) -> dict[str, dict[str, Any]]:
    """The mean over seeds minus the reference, with intervals, on each shifted and each outside set that both have."""
    shifted = {
        name: vars(paired_bootstrap(torch.stack([one.losses[name] for one in several]).mean(0), losses, seed=0))
        for name, losses in reference.losses.items()
        if name in several[0].losses
    }
    outside = {name: _told_apart(several, reference, name) for name in reference.outside if name in several[0].outside}
    return {part: found for part, found in (("shifted", shifted), ("outside", outside)) if found}


def _told_apart(several: Sequence[Beyond], reference: Beyond, name: str) -> dict[str, Any]:
    """AUROC minus the reference's; the places of one example are drawn together."""
    pairs = [_pair(one, name) for one in (reference, *several)]
    inside, outer = pairs[0]
    owner = torch.cat([
        torch.arange(len(inside)).repeat_interleave(inside.shape[1]),
        torch.arange(len(outer)).repeat_interleave(outer.shape[1]) + len(inside),
    ])  # fmt: skip
    full, *own = (torch.cat([part.flatten() for part in pair]) for pair in pairs)
    dense = owner if len(owner) > len(inside) + len(outer) else None
    gap = paired_bootstrap_figure(
        _mean_auroc, torch.stack(own, 1), full[:, None], owner >= len(inside), seed=0, draws=DRAWS, clusters=dense
    )
    return vars(gap)


def _pair(one: Beyond, name: str) -> tuple[Tensor, Tensor]:
    """Entropies of the figure rows and of an outside set."""
    assert one.inside is not None
    return one.inside, one.outside[name]


def _mean_auroc(scores: Tensor, positive: Tensor) -> float:
    """AUROC of scores `[M, S]`, mean over seeds."""
    return sum(auroc(one, positive) for one in scores.unbind(1)) / scores.shape[1]


def outputs_of(job: Job, folder: RunFolder, part: str) -> Tensor:
    """Kept outputs `[K, N, ..., C]` of all of a job's networks on one part of the rows."""
    return folder.outputs([job.place(network) for network in job.arm.networks], job.arm.members, part)


def _uncertainties(outputs: Tensor, measured: Measured) -> dict[str, Tensor]:
    """Uncertainty of every place `[N, places]`, by kind; members are told apart only where there are several."""
    held = Outputs(outputs.flatten(1, -2), torch.empty(0))
    scaled = measured.answer(held)
    found = {"entropy": entropy(held.pooled()), "entropy_scaled": entropy(scaled)}
    if len(outputs) > 1:
        found["mutual_information"] = mutual_information(member_sums(held.logits.to(torch.float64)))
    return {kind: values.view(outputs.shape[1], -1) for kind, values in found.items()}


def _detected(inside: Tensor, outside: Tensor) -> dict[str, float]:
    every, positive = torch.cat([inside, outside]), torch.arange(len(inside) + len(outside)) >= len(inside)
    return {"auroc": auroc(every, positive), "fpr95": fpr_at(every, positive)}
