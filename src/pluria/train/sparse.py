"""Dynamic sparse training: a network that is sparse all along, whose connections are dropped and grown as it learns.

    density of a layer   proportional to (sum of its dimensions) / (product of them), dense where that passes 1   (ERK)
    explore(p)           drop the smallest p of the weights there are, grow as many where the gradient is largest (RigL)

Tickets of one run (EDST): at the end of each phase take a snapshot, then `explore(0.8)` to leave its basin. Those of
several runs (DST) are independent trainings.

Sources: Evci et al., "Rigging the Lottery", ICML 2020; Liu et al., "Deep Ensembling with No Overhead for either
Training or Testing: The All-Round Blessings of Dynamic Sparsity", ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from pluria.numbers.key import Key
from pluria.train.collector import When
from pluria.train.factors import weights_of
from pluria.train.fresh import fresh_order


class SparseTraining:
    """Keeps a network at a density while a loop of yours trains it.

        sparse = SparseTraining(model, density=0.2)
        loss.backward(); [now and then: sparse.explore(0.3)]; optimizer.step(); sparse.mask()

    `attach` makes an optimiser do both. Frozen weights stay whole. `masks` are bool by name; with the steps of an
    attached optimiser they are the state that a checkpoint must hold beside the network: `train(beside=...)`. Exploring
    reads dense gradients, so it comes between `backward` and the optimiser's step; grown weights start at zero. Raises
    ValueError without layers.
    """

    def __init__(self, model: nn.Module, *, density: float = 0.2, key: Key | int = 0) -> None:
        key = key if isinstance(key, Key) else Key(key)
        self.weights = weights_of(model, "sparse training", learned=True)
        self.masks: dict[str, Tensor] = {}
        self.steps = 0
        for name, share in erk_densities(model, density=density).items():
            weight = self.weights[name]
            kept = fresh_order(f"{name}\0sparse", weight.numel(), key) < round(share * weight.numel())
            self.masks[name] = kept.view(weight.shape).to(weight.device)
        self.mask()

    def attach(self, optimizer: torch.optim.Optimizer, *, when: When, share: float) -> None:
        """Let steps of `optimizer`, counted from 1, end with `mask`; those that `when` names begin with `explore`."""

        def before(*_: object) -> None:
            self.steps += 1
            if when(self.steps):
                self.explore(share)

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(lambda *_: self.mask())

    def state_dict(self) -> dict[str, Any]:
        """The masks, and the steps of an attached optimiser."""
        return {"masks": dict(self.masks), "steps": self.steps}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take a state again. Raises ValueError for one of other layers, with the masks as they were."""
        masks = state_dict["masks"]
        if {n: m.shape for n, m in masks.items()} != {n: m.shape for n, m in self.masks.items()}:
            raise ValueError(f"these are masks of other layers: {sorted(masks)}, here are {sorted(self.masks)}")
        self.masks = {name: mask.to(self.weights[name].device, copy=True) for name, mask in masks.items()}
        self.steps = int(state_dict["steps"])

    @torch.no_grad()
    def mask(self) -> None:
        """Set what is not there to zero; after every optimiser step."""
        for name, mask in self.masks.items():
            self.weights[name].masked_fill_(~mask, 0)

    @torch.no_grad()
    def explore(self, share: float) -> None:
        """Drop the smallest `share` of each layer's weights, and grow as many others where gradients are largest.

        Raises ValueError for a share outside 0..1 or a layer without gradient.
        """
        if not 0 <= share <= 1:
            raise ValueError(f"a share lies in 0..1; got {share}")
        for name, weight in self.weights.items():
            if weight.grad is None:
                raise ValueError(f"{name} has no gradient; explore between `backward` and the optimiser's step")
            self.masks[name] = _moved(weight, weight.grad, self.masks[name], share)
            weight.masked_fill_(~self.masks[name], 0)


def erk_densities(model: nn.Module, *, density: float) -> dict[str, float]:
    """Densities of layers that learn, `density` for all together: wide ones sparser, those that would pass 1 dense."""
    if not 0 < density <= 1:
        raise ValueError(f"a density lies in (0, 1]; got {density}")
    weights = weights_of(model, "sparse training", learned=True)
    raw = {name: sum(w.shape) / w.numel() for name, w in weights.items()}
    dense: set[str] = set()
    while True:
        left = {name for name in weights if name not in dense}
        wanted = density * sum(w.numel() for w in weights.values()) - sum(weights[name].numel() for name in dense)
        factor = wanted / sum(raw[name] * weights[name].numel() for name in left) if left else 0.0
        over = {name for name in left if factor * raw[name] > 1}
        if not over:
            return {name: 1.0 if name in dense else factor * raw[name] for name in weights}
        dense |= over


def _moved(weight: Tensor, grad: Tensor, mask: Tensor, share: float) -> Tensor:
    """The mask with the smallest weights dropped and as many absent places of the largest gradients grown."""
    here, absent = int(mask.sum()), int((~mask).sum())
    count = min(round(share * here), absent)
    if not count:
        return mask
    size = torch.where(mask, weight.abs(), torch.inf).flatten()
    dropped = torch.argsort(size, stable=True)[:count]
    # What was dropped now cannot grow back at once: the network would stay where it is.
    pull = torch.where(mask, -1.0, grad.abs()).flatten()
    grown = torch.argsort(pull, descending=True, stable=True)[:count]
    return mask.clone().view(-1).scatter_(0, dropped, False).scatter_(0, grown, True).view(mask.shape)
