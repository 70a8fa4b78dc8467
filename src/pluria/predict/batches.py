"""What a batch is: its inputs, its targets, and where a model's logits are. How it is called lies in the core."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor
from torch.utils.data import RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from pluria.core.calling import call, moved, place

__all__ = ["Batches", "call", "first", "logits", "moved", "place", "refuse_unstable"]

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
    samplers = (getattr(batches, "sampler", None), getattr(getattr(batches, "batch_sampler", None), "sampler", None))
    if any(isinstance(sampler, SHUFFLING) for sampler in samplers):
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
