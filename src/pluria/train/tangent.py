"""Networks that are linear in what they learn, so that averaging their weights IS averaging their answers.

    f(x; v) = f(x; w) + J_w f(x) v      f(x; mean_k v_k) = mean_k f(x; v_k), exactly

Fine-tune v on each shard or task, in evaluation mode; add and remove members at will, at the price of one network.

Source: Liu and Soatto, "Tangent Model Composition for Ensembling and Continual Fine-tuning", ICCV 2023.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pluria.core.params import Params, check_same
from pluria.train.forward import directional


class Tangent(nn.Module):
    """The network `model` at its tangent: `steps` are v, zero at first; its own tensors are held.

    Parameters that `model` holds frozen have no step; given `steps` say by their names which have one.

    `output` tensors only. Norms and dropout are those of evaluation mode.
    """

    def __init__(self, model: nn.Module, steps: Params | None = None) -> None:
        super().__init__()
        own = dict(model.named_parameters())
        self.names = [name for name, value in own.items() if (value.requires_grad if steps is None else name in steps)]
        if not self.names:
            raise ValueError("nothing learns: all parameters of the network are frozen")
        if steps is not None:
            check_same([{name: own[name] for name in self.names}, steps])
        self.network = copy.deepcopy(model).eval().requires_grad_(False)
        start = {
            name: torch.zeros_like(own[name]) if steps is None else steps[name].detach().clone() for name in self.names
        }
        self.steps = nn.ParameterDict({name.replace(".", "/"): nn.Parameter(value) for name, value in start.items()})

    def train(self, mode: bool = True) -> Tangent:
        """Evaluation mode inside, always: the point of the tangent stays where it is."""
        super().train(mode)
        self.network.eval()
        return self

    def params(self) -> dict[str, Tensor]:
        """v by the network's own names."""
        return {name: self.steps[name.replace(".", "/")] for name in self.names}

    def forward(self, inputs: Tensor, *more: Any) -> Tensor:
        """f(x; w) + J v, by one pass in forward mode."""
        at = {name: value for name, value in self.network.named_parameters() if name in self.names}

        def run(params: dict[str, Tensor]) -> Tensor:
            return functional_call(self.network, params, (inputs, *more))  # type: ignore[no-any-return]

        value, change = directional(run, (at,), (self.params(),))
        return torch.add(value, change)


def compose(members: Sequence[Tangent], weights: Sequence[float] | None = None) -> Tangent:
    """One tangent network that answers with the mean of the members' answers, or their weighted sum.

    Raises ValueError for no members, or members at different points.
    """
    if not members:
        raise ValueError("nothing to compose; give one tangent network or more")
    first = dict(members[0].network.state_dict())
    if not all(torch.equal(v, m.network.state_dict()[n]) for m in members for n, v in first.items()):
        raise ValueError("the members are tangents at different points, and their sum means nothing")
    shares = [1 / len(members)] * len(members) if weights is None else list(weights)
    if len(shares) != len(members):
        raise ValueError(f"{len(members)} members and {len(shares)} weights")
    steps = {
        name: torch.stack([share * m.params()[name] for share, m in zip(shares, members, strict=True)]).sum(0)
        for name in members[0].names
    }
    return Tangent(members[0].network, steps)
