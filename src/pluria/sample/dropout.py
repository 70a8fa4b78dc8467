"""MC dropout as members: one mask per member, shared by all examples, addressed by a buffer that holds its number.

    y = x mask_m / (1 - p),   mask_m[j] = 1[u_mj >= p],   u addressed by key, layer, member, element j of one example

Source: Gal and Ghahramani, "Dropout as a Bayesian Approximation", ICML 2016.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble, single
from pluria.core.family import Stacked
from pluria.core.params import params_of
from pluria.numbers.key import DROPOUT, Key, tensor_id
from pluria.numbers.philox import uniforms, words

KINDS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


def dropout(model: nn.Module, *, members: int = 8, key: Key | int = 0) -> tuple[nn.Module, Ensemble]:
    """A copy of `model` whose dropout layers are seeded, and its members: all tensors shared but the members' numbers.

    The user's model is not touched. Raises ValueError where no dropout layer is active: dropout that is called as a
    function inside `forward` cannot be seen.
    """
    key = key if isinstance(key, Key) else Key(key)
    seeded = _replace(copy.deepcopy(model), "", key)
    every = seeded.named_modules(remove_duplicate=False)
    layers = [name for name, module in every if isinstance(module, SeededDropout)]
    if not layers:
        raise ValueError("the model has no dropout layer with p > 0, so its dropout members would all be the same")
    numbers = Stacked(torch.arange(members))
    families = single(params_of(seeded)).families
    return seeded, Ensemble({**families, **{f"{name}.member": numbers for name in layers}}, tuple(range(members)))


class SeededDropout(nn.Module):
    """Dropout whose mask is a function of the buffer `member` (int64 scalar), in training and evaluation mode alike."""

    member: Tensor

    def __init__(self, p: float, name: str, key: Key, *, channels: bool) -> None:
        super().__init__()
        self.p, self.name, self.key, self.channels = p, name, key, channels
        self.register_buffer("member", torch.zeros((), dtype=torch.int64))
        # A hook keeps torch's transformer layers off their fused inference path, which would pass over this module.
        self.register_forward_pre_hook(_no_change)

    def forward(self, x: Tensor) -> Tensor:
        shape = (x.shape[1], *(1 for _ in x.shape[2:])) if self.channels else x.shape[1:]
        where = {"tensor": tensor_id(self.name), "group": self.member, "stream": DROPOUT}
        word = words(self.key, start=0, stop=torch.Size(shape).numel(), device=x.device, **where)  # type: ignore[arg-type]
        kept = uniforms(word).view(shape) >= self.p
        return x * (kept / (1.0 - self.p)).to(x.dtype)


def _no_change(module: nn.Module, args: tuple[object, ...]) -> None:
    return None


def _replace(module: nn.Module, prefix: str, key: Key) -> nn.Module:
    if isinstance(module, nn.TransformerEncoder):
        module.use_nested_tensor = False  # for the fused path alone
    # Not `named_children`: it passes over the second place of a layer that stands in two.
    for name, child in module._modules.items():
        full = f"{prefix}.{name}" if prefix else name
        if child is None:
            continue
        if isinstance(child, KINDS) and 0 < child.p < 1:
            setattr(module, name, SeededDropout(child.p, full, key, channels=not isinstance(child, nn.Dropout)))
        else:
            _replace(child, full, key)
    return module
