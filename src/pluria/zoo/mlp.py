"""A multilayer perceptron with ReLU between its layers; inputs of any shape are flattened."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import nn


def mlp(inputs: int, classes: int, *, hidden: Sequence[int] = (64, 64), dropout: float = 0.0) -> nn.Sequential:
    """A network `[N, ...]` with `inputs` numbers an example -> logits `[N, classes]`; no `hidden` gives a linear one.

    >>> [name for name, _ in mlp(4, 3, hidden=[8]).named_parameters()]
    ['linear1.weight', 'linear1.bias', 'head.weight', 'head.bias']
    """
    modules: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    widths = (inputs, *hidden)
    for i, (before, after) in enumerate(pairwise(widths), start=1):
        modules[f"linear{i}"] = nn.Linear(before, after)
        modules[f"relu{i}"] = nn.ReLU()
        if dropout:
            modules[f"dropout{i}"] = nn.Dropout(dropout)
    modules["head"] = nn.Linear(widths[-1], classes)
    return nn.Sequential(modules)
