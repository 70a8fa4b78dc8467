"""A small convolutional network for small images: three 3 x 3 convolutions, two of them pooled, and a linear head."""

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from pluria.zoo.lookup import choose

_NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm2d, "none": nn.Identity}


def small_cnn(
    *,
    channels: int = 1,
    size: int = 8,
    classes: int = 10,
    width: int = 16,
    dropout: float = 0.0,
    norm: str = "batch",
) -> nn.Sequential:
    """A network `[N, channels, size, size]` -> logits `[N, classes]`; `size` of at least 4.

    `norm` is "batch" or "none"; `dropout` above zero drops features before the head.
    """
    if size < 4:
        raise ValueError(f"two poolings need images of at least 4 x 4 pixels, not {size} x {size}")
    normalise = choose(_NORMS, norm, what="norm")
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    widths = (channels, width, 2 * width, 2 * width)
    for i, (before, after) in enumerate(pairwise(widths), start=1):
        modules[f"conv{i}"] = nn.Conv2d(before, after, 3, padding=1, bias=norm == "none")
        modules[f"norm{i}"] = normalise(after)
        modules[f"relu{i}"] = nn.ReLU()
        if i > 1:
            modules[f"pool{i}"] = nn.MaxPool2d(2)
    modules["flatten"] = nn.Flatten()
    # Without dropout there is no dropout module, so that a search for one finds what is really there.
    modules["dropout"] = nn.Dropout(dropout) if dropout else nn.Identity()
    modules["head"] = nn.Linear(2 * width * (size // 4) ** 2, classes)
    return nn.Sequential(modules)
