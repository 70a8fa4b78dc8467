"""Large embeddings row by row: a member's rows are drawn when a batch asks for them, each from its own address.

A batch of 512 words reads at most 512 of 30,000 rows, so nearly all of the table need not be written.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.core.rounded import Rounded
from pluria.numbers import kernel
from pluria.predict.scaled import Writer, alone, put

LARGE = 2**20
"""Elements of a table for which looking at the words pays."""


class Rows(nn.Module):
    """An embedding whose table holds those rows of one member that were asked for; nothing may read past it."""

    def __init__(self, layer: nn.Embedding, family: Rounded) -> None:
        super().__init__()
        self.layer, self.family, self.member = layer, family, 0
        self.done = torch.zeros(len(layer.weight), dtype=torch.bool)

    def take(self, member: int) -> None:
        """Begin with a member: none of its rows is there."""
        self.member = member
        self.done.zero_()

    def forward(self, words: Tensor) -> Tensor:
        asked = torch.unique(words.flatten().to(torch.int64))
        fresh = asked[~self.done[asked]]
        self.family.write_rows(self.member, self.layer.weight, fresh)
        self.done[fresh] = True
        out: Tensor = self.layer(words)
        return out


def by_rows(twin: nn.Module, ensemble: Ensemble) -> tuple[list[Writer], set[str]]:
    """Put `Rows` into `twin` where they pay: their writers, and names served."""
    writers: list[Writer] = []
    served = set()
    for name, layer in alone(twin, (nn.Embedding,)):
        family, weight = ensemble.families[f"{name}.weight"], layer.weight
        drawn = isinstance(family, Rounded) and family.coupling is not None
        if drawn and weight.numel() >= LARGE and layer.max_norm is None and kernel.available(weight.device):
            made = Rows(layer, family)  # type: ignore[arg-type]
            put(twin, name, made)
            writers.append(made.take)
            served.add(f"{name}.weight")
    return writers, served
