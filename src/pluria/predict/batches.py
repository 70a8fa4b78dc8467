"""What a batch is: its inputs, its targets, how a model is called with them and where its logits are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

Batches = Iterable[Any]
"""A re-iterable, unshuffled collection of batches, such as a DataLoader without shuffling or a list."""

SHUFFLING = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
TARGETS = ("labels", "label", "targets", "target", "y")


def refuse_unstable(batches: Batches) -> None:
    """Raise TypeError for an iterator and ValueError for a shuffling DataLoader: every pass must be the same."""
    if iter(batches) is batches:
        raise TypeError(
            "batches are gone through once for each block of members: give a list or a DataLoader, no iterator"
        )
    if isinstance(getattr(batches, "sampler", None), SHUFFLING):
        raise ValueError(
            "batches are gone through once for each block of members, and this DataLoader shuffles them anew each "
            "time: members would not see the same examples. Make it with shuffle=False"
        )


def first(batch: Any) -> tuple[Any, Tensor | None]:
    """Inputs and targets of a batch: (inputs, targets, ...), a dict with labels among its keys, or inputs alone."""
    if isinstance(batch, Mapping):
        name = next((name for name in TARGETS if name in batch), None)
        return {key: value for key, value in batch.items() if key != name}, None if name is None else batch[name]
    if isinstance(batch, tuple | list):
        return batch[0], batch[1] if len(batch) > 1 else None
    return batch, None


def logits(output: Any) -> Tensor:
    """The logits of a model's output: a tensor, an object or dict with `logits`, or the first of a tuple."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping) and "logits" in output:
        return logits(output["logits"])
    if hasattr(output, "logits"):
        return logits(output.logits)
    if isinstance(output, tuple | list) and output:
        return logits(output[0])
    raise TypeError(f"the model returned {type(output).__name__}, which has no logits; give an `output` function")


def call(model: Callable[..., Any], inputs: Any) -> Any:
    """Call a model with a tensor, a tuple of arguments or a dict of named ones."""
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, tuple | list):
        return model(*inputs)
    return model(inputs)


def moved(value: Any, device: torch.device | None, dtype: torch.dtype | None) -> Any:
    """A structure of tensors on `device`; floating tensors in `dtype`."""
    if isinstance(value, Tensor):
        return value.to(device=device, dtype=dtype if value.is_floating_point() else None)
    if isinstance(value, Mapping):
        return {key: moved(item, device, dtype) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [moved(item, device, dtype) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def place(model: nn.Module) -> torch.device:
    """The device of a model's first tensor, the CPU if it has none."""
    return next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))
