"""MC dropout as members: one mask per member, shared by all examples, addressed by a buffer: the key and its number.

    y = x mask_m / (1 - p),   mask_m[j] = 1[u_mj >= p],   u addressed by key, layer, member, element j of one example

A layer that is called several times in one forward uses the same mask each time.

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
from pluria.numbers.philox import philox4x32, uniforms

KINDS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
ENCODERS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


def dropout(
    model: nn.Module, *, members: int = 8, batch_axis: int = 0, key: Key | int = 0
) -> tuple[nn.Module, Ensemble]:
    """A copy of `model` whose dropout layers are seeded, and its members: all tensors shared but the masks' addresses.

    batch_axis   where the examples lie in the inputs of dropout layers, 1 for sequence-first networks; torch's own
                 transformer layers tell it themselves, and dropout of channels has its examples first

    The user's model is not touched. Raises ValueError where no dropout layer is active: dropout that is called as a
    function inside `forward` cannot be seen.
    """
    if isinstance(batch_axis, bool) or not isinstance(batch_axis, int) or batch_axis < 0:
        raise ValueError(f"the batch axis is counted from the first, which is 0; got {batch_axis!r}")
    key = key if isinstance(key, Key) else Key(key)
    seeded = _replace(copy.deepcopy(model), "", key, batch_axis)
    every = seeded.named_modules(remove_duplicate=False)
    layers = [name for name, module in every if isinstance(module, SeededDropout)]
    if not layers:
        raise ValueError("the model has no dropout layer with p > 0, so its dropout members would all be the same")
    numbers = tuple(range(members))
    addresses = torch.tensor([[*key.words, number] for number in numbers], dtype=torch.int64).view(len(numbers), 3)
    masks = dict.fromkeys((f"{name}.member" for name in layers), Stacked(addresses))
    return seeded, Ensemble({**single(params_of(seeded)).families, **masks}, numbers)


class SeededDropout(nn.Module):
    """Dropout whose mask is a function of the buffer `member`, in training and evaluation mode alike.

    `member` is int64 `[3]`: the two words of the key, low first, and the member's number.
    """

    member: Tensor

    def __init__(self, p: float, name: str, key: Key, *, channels: bool, batch_axis: int) -> None:
        super().__init__()
        self.p, self.name, self.channels, self.batch_axis = p, name, channels, batch_axis
        self.register_buffer("member", torch.tensor([*key.words, 0]))
        # A hook keeps torch's transformer layers off their fused inference path, which would pass over this module.
        self.register_forward_pre_hook(_no_change)

    def forward(self, x: Tensor) -> Tensor:
        shape = torch.Size(self._shape(x))
        kept = uniforms(self._words(shape.numel(), x.device)).view(shape) >= self.p
        return x * (kept / (1.0 - self.p)).to(x.dtype)

    def _shape(self, x: Tensor) -> list[int]:
        """The mask's: that of one example."""
        if self.channels:
            return [1, x.shape[1], *(1 for _ in x.shape[2:])]
        if x.ndim <= self.batch_axis:
            raise ValueError(
                f"dropout {self.name!r} has inputs of shape {tuple(x.shape)}, without axis {self.batch_axis} for the "
                "examples; give another `batch_axis`"
            )
        return [1 if axis == self.batch_axis else size for axis, size in enumerate(x.shape)]

    def _words(self, count: int, device: torch.device) -> Tensor:
        """Random words of elements 0..count-1; the key is a tensor too, so that members can be run side by side."""
        low, high, member = self.member.to(device).unbind()
        quads = torch.arange((count + 3) // 4, device=device)
        layer, stream = (torch.tensor(value, device=device) for value in (tensor_id(self.name), DROPOUT))
        return torch.stack(philox4x32((quads, layer, member, stream), (low, high)), dim=-1).flatten()[:count]  # type: ignore[arg-type]


def _no_change(module: nn.Module, args: tuple[object, ...]) -> None:
    return None


def _replace(module: nn.Module, prefix: str, key: Key, axis: int) -> nn.Module:
    if isinstance(module, ENCODERS):
        axis = 0 if module.self_attn.batch_first else 1
    if isinstance(module, nn.TransformerEncoder):
        module.use_nested_tensor = False  # for the fused path alone
    # Not `named_children`: it passes over the second place of a layer that stands in two.
    for name, child in module._modules.items():
        full = f"{prefix}.{name}" if prefix else name
        if child is None:
            continue
        if isinstance(child, KINDS) and 0 < child.p < 1:
            channels = not isinstance(child, nn.Dropout)
            setattr(module, name, SeededDropout(child.p, full, key, channels=channels, batch_axis=axis))
        else:
            _replace(child, full, key, axis)
    return module
