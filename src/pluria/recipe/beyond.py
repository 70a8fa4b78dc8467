"""What an arm is worth beyond the rows it was calibrated for: shifted rows, and rows of no known class.

shifted   scores with the pool and temperature of the clean calibration rows
outside   how well uncertainty tells outside rows from the figure rows: AUROC, and FPR at 95 % of them found
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pluria.recipe.folder import RunFolder
from pluria.recipe.measure import Measured, scores
from pluria.recipe.outputs import Outputs
from pluria.recipe.plan import Job
from pluria.recipe.resolve import Rows
from pluria.score import auroc, entropy, fpr_at, member_sums, mutual_information


def beyond(job: Job, rows: Rows, folder: RunFolder, measured: Measured) -> dict[str, Any]:
    """Figures on every shifted and every outside set of rows; nothing where the arm leaves them out."""
    if not job.arm.beyond:
        return {}
    found: dict[str, Any] = {}
    for name, part in rows.shifted.items():
        held = Outputs.of(outputs_of(job, folder, f"shifted-{name}"), part.targets)
        scaled = measured.answer(held)
        pair = {"scores": scores(held.pooled(), held.y), "scaled": scores(scaled, held.y)}
        found.setdefault("shifted", {})[name] = pair
    inside = _uncertainties(outputs_of(job, folder, "figures"), measured) if rows.outside else {}
    for name in rows.outside:
        outer = _uncertainties(outputs_of(job, folder, f"outside-{name}"), measured)
        found.setdefault("outside", {})[name] = {kind: _detected(inside[kind], outer[kind]) for kind in inside}
    return found


def outputs_of(job: Job, folder: RunFolder, part: str) -> Tensor:
    """Kept outputs `[K, N, ..., C]` of all of a job's networks on one part of the rows."""
    return folder.outputs([job.place(network) for network in job.arm.networks], job.arm.members, part)


def _uncertainties(outputs: Tensor, measured: Measured) -> dict[str, Tensor]:
    """Uncertainty of every place `[M]`, by kind; members are told apart only where there are several."""
    held = Outputs(outputs.flatten(1, -2), torch.empty(0))
    scaled = measured.answer(held)
    found = {"entropy": entropy(held.pooled()), "entropy_scaled": entropy(scaled)}
    if len(outputs) > 1:
        found["mutual_information"] = mutual_information(member_sums(held.logits.to(torch.float64)))
    return found


def _detected(inside: Tensor, outside: Tensor) -> dict[str, float]:
    every, positive = torch.cat([inside, outside]), torch.arange(len(inside) + len(outside)) >= len(inside)
    return {"auroc": auroc(every, positive), "fpr95": fpr_at(every, positive)}
