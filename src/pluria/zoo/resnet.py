"""Residual networks for 32 x 32 images: depth 6n + 2, widths 16, 32, 64, shortcuts without parameters.

    block(x) = activation(norm(conv(activation(norm(conv(x))))) + shortcut(x))

Where a stage halves the image, the shortcut takes every second pixel and pads the new channels with zeros, half of
them on each side. Names of tensors fit the widely used public checkpoints (`conv1`, `bn1`, `layer1.0.conv1`, `linear`).
Source: He, Zhang, Ren and Sun 2016, Deep Residual Learning, section 4.2, arXiv:1512.03385.
"""

from collections.abc import Callable
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from pluria.zoo.frn import FilterResponseNorm, ThresholdedLinear
from pluria.zoo.lookup import choose

Layer = Callable[[int], nn.Module]

_NORMS: dict[str, Layer] = {"batch": nn.BatchNorm2d, "frn": FilterResponseNorm}
_ACTIVATIONS: dict[str, Layer] = {
    "relu": lambda channels: nn.ReLU(),
    "swish": lambda channels: nn.SiLU(),
    "tlu": ThresholdedLinear,
}


def cifar_resnet(depth: int = 20, *, classes: int = 10, norm: str = "batch", activation: str = "relu") -> "CifarResNet":
    """A network `[N, 3, H, W]` -> logits `[N, classes]`, for `depth` 20, 32, 44, 56, 110 ... (6n + 2).

    `norm` is "batch" or "frn" (filter response normalisation, no batch statistics); `activation` is "relu", "swish"
    (x * sigmoid(x)), or "tlu", the learned threshold that the paper of "frn" sets in place of a ReLU.
    """
    if depth < 8 or depth % 6 != 2:
        raise ValueError(f"depth must be 6n + 2 (8, 14, 20, 32, 56 ...), not {depth}")
    return CifarResNet(
        blocks=depth // 6,
        classes=classes,
        norm=choose(_NORMS, norm, what="norm"),
        activation=choose(_ACTIVATIONS, activation, what="activation"),
    )


class CifarResNet(nn.Module):
    """A first convolution, three stages of `blocks` residual blocks, the mean over pixels, and a linear head."""

    def __init__(self, *, blocks: int, classes: int, norm: Layer, activation: Layer) -> None:
        super().__init__()
        self.conv1 = _conv(3, 16)
        self.bn1 = norm(16)
        self.act1 = activation(16)
        self.layer1 = _stage(16, 16, blocks, norm, activation)
        self.layer2 = _stage(16, 32, blocks, norm, activation)
        self.layer3 = _stage(32, 64, blocks, norm, activation)
        self.linear = nn.Linear(64, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(x.mean(dim=(-2, -1)))
        return logits


class _Block(nn.Module):
    """Two convolutions and a shortcut; a change of width halves the image."""

    def __init__(self, before: int, after: int, norm: Layer, activation: Layer) -> None:
        super().__init__()
        self.stride = 1 if before == after else 2
        self.padding = (after - before) // 2
        self.conv1 = _conv(before, after, stride=self.stride)
        self.bn1 = norm(after)
        self.act1 = activation(after)
        self.conv2 = _conv(after, after)
        self.bn2 = norm(after)
        self.act2 = activation(after)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.bn2(self.conv2(self.act1(self.bn1(self.conv1(x)))))
        result: Tensor = self.act2(residual + self._shortcut(x))
        return result

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            return x
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))


def _conv(before: int, after: int, *, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)


def _stage(before: int, after: int, blocks: int, norm: Layer, activation: Layer) -> nn.Sequential:
    widths = [before] + [after] * blocks
    return nn.Sequential(*(_Block(*pair, norm, activation) for pair in pairwise(widths)))
