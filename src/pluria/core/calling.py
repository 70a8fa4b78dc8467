"""How a model is called: with a tensor, a tuple of arguments or a dict of named ones, on its own device."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

Forward = Callable[[nn.Module, Any], Any]
"""How a model is called with one batch."""


def call(model: Callable[..., Any], inputs: Any) -> Any:
    """Call a model with a tensor, a tuple of arguments or a dict of named ones.

    Raises TypeError where it fails because of arrays in place of tensors, or of more arguments than it takes.
    """
    try:
        if isinstance(inputs, Mapping):
            return model(**inputs)
        if isinstance(inputs, tuple | list):
            return model(*inputs)
        return model(inputs)
    except (TypeError, AttributeError) as error:
        reason = _unfit(model, inputs)
        if reason is None:
            raise
        raise TypeError(reason) from error


def check_batches(inputs: object) -> None:
    """Raise TypeError for one batch in place of several."""
    if isinstance(inputs, Tensor | Mapping) or hasattr(inputs, "__array__"):
        raise TypeError("`inputs` are batches, one after the other; got a single one. Write [inputs]")


def check_seen(x: Tensor, module: str, *, wanted: str) -> None:
    """Raise ValueError where the inputs of a module hold NaN or Inf; `module` is its name, "" the whole network."""
    if not bool(torch.isfinite(x).all()):
        where = f"layer {module!r}" if module else "the network, which is itself a layer"
        raise ValueError(
            f"NaN or Inf among the inputs of {where}, so they have no {wanted}. Look for them in the inputs, or run "
            "the network in float32"
        )


def moved(value: Any, device: torch.device | None, dtype: torch.dtype | None, *, channels_last: bool = False) -> Any:
    """A structure of tensors on `device`; floating tensors in `dtype`, images with their channels last in memory."""
    if isinstance(value, Tensor):
        order = torch.channels_last if channels_last and value.ndim == 4 else torch.preserve_format
        return value.to(device=device, dtype=dtype if value.is_floating_point() else None, memory_format=order)
    if isinstance(value, Mapping):
        return {key: moved(item, device, dtype, channels_last=channels_last) for key, item in value.items()}
    if isinstance(value, tuple | list):
        items = [moved(item, device, dtype, channels_last=channels_last) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def tensors_of(value: Any) -> Iterator[Tensor]:
    """The tensors of a structure of inputs."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping | tuple | list):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from tensors_of(item)


def place(model: nn.Module) -> torch.device:
    """The device of a model's first tensor, the CPU if it has none."""
    return next((tensor.device for tensor in model.state_dict().values()), torch.device("cpu"))


def _unfit(model: Callable[..., Any], inputs: Any) -> str | None:
    """What is wrong with a batch that a call failed on, as far as that can be told."""
    several = isinstance(inputs, tuple | list)
    values = inputs.values() if isinstance(inputs, Mapping) else inputs if several else [inputs]
    if any(hasattr(value, "__array__") and not isinstance(value, Tensor) for value in values):
        return "the batch holds a NumPy array; give a tensor, torch.from_numpy(array)"
    if not several:
        return None
    try:
        inspect.signature(model.forward if isinstance(model, nn.Module) else model).bind(*inputs)
    except TypeError as error:
        counted = f"the network does not take the {len(inputs)} parts of a batch as its arguments ({error})"
        return f"{counted}. Where targets stand beside the inputs, give the inputs alone"
    except ValueError:  # a builtin has no signature
        pass
    return None
