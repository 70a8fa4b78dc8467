"""One answer for each example, how sure it is, and how the members differ.

entropy             H(p) of what is answered, in nats, at most log C
mutual information  H(p_bar) - sum_k w_k H(p_k) of the members by their mixing weights, in nats: what they disagree on
agreement           weight of the members whose first choice is the answer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pluria.score import member_sums, mutual_information
from pluria.serve.panel import Pooling


@dataclass(frozen=True, eq=False)
class Answers:
    """Answers of n examples: `probabilities` float64 `[n, C]`, the others `[n]`; `members` how many each has seen."""

    probabilities: Tensor
    entropy: Tensor
    mutual_information: Tensor
    agreement: Tensor
    members: Tensor
    outputs: Tensor
    weights: Tensor

    def records(self, rows: slice, classes: Sequence[str], *, members: bool) -> list[dict[str, Any]]:
        """Answers of some examples as JSON; `members` adds every member's probabilities, `[k, C]`."""
        every = self.probabilities[rows]
        found = zip(
            every.argmax(-1).tolist(),
            every.tolist(),
            *(values[rows].tolist() for values in (self.entropy, self.mutual_information, self.agreement)),
            self.members[rows].tolist(),
            strict=True,
        )
        records = [_record(classes, *values) for values in found]
        if members:
            for record, row in zip(records, range(*rows.indices(len(self.members))), strict=True):
                record["member_probabilities"] = self._members(row)
        return records

    def _members(self, row: int) -> list[list[float]]:
        own: list[list[float]] = self.outputs[: int(self.members[row]), row].double().softmax(-1).tolist()
        return own


def answers(pooling: Pooling, outputs: Tensor, weights: Tensor, members: Tensor) -> Answers:
    """Answers from members' outputs `[K, n, C]`; `weights` `[K, n]` is 0 for members that an example has not seen.

    ValueError where a network gave NaN or Inf, or where a weight is positive for no member of an example.
    """
    if not bool(torch.isfinite(outputs).all()):
        raise ValueError("the network gives NaN or Inf for these inputs")
    probabilities = pooling(outputs, weights).double().exp()
    sums = member_sums(outputs, weights)
    return Answers(
        probabilities=probabilities,
        entropy=torch.special.entr(probabilities).sum(-1),
        mutual_information=mutual_information(sums),
        agreement=sums.vote_shares.gather(-1, probabilities.argmax(-1, keepdim=True))[:, 0],
        members=members,
        outputs=outputs,
        weights=weights,
    )


def _record(
    classes: Sequence[str],
    choice: int,
    probabilities: list[float],
    entropy: float,
    information: float,
    agreement: float,
    members: int,
) -> dict[str, Any]:
    return {
        "label": classes[choice],
        "class": choice,
        "probabilities": probabilities,
        "entropy": entropy,
        "mutual_information": information,
        "agreement": agreement,
        "members": members,
    }
