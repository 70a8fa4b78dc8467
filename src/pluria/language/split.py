"""A network in two halves, so that its logits need not stand in memory at once: the body, and the head on some places.

    logits[places] = head(states[places])        states = body(inputs)        [N, D] in place of [N, V]

transformers' networks keep their body as a module of its own. The head is whatever the network does after it, and is
run as the network has it: the body is made to answer with the states that were kept. A network of another kind is not
split: its states are its logits, and its head picks places.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.calling import call
from pluria.predict.batches import logits


class Split:
    """Both halves of a network. `outside` are names of the tensors that the head uses by itself, tied ones included."""

    def __init__(self, model: nn.Module) -> None:
        prefix = getattr(model, "base_model_prefix", "")
        part = getattr(model, prefix, None) if prefix else None
        self.model = model
        self.part = part if isinstance(part, nn.Module) else None
        self.outside = () if self.part is None else _outside(model, self.part)
        self.kind: Any = None

    def body(self, inputs: Any) -> Tensor:
        """The states `[B, L, D]` of inputs: tokens `[B, L]`, or the network's named arguments."""
        if self.part is None:
            return logits(call(self.model, inputs))
        named = inputs if isinstance(inputs, Mapping) else {"input_ids": inputs}
        output = self.part(**named, **_uncached(self.model))
        self.kind = type(output)
        states: Tensor = output[0]
        return states

    def head(self, states: Tensor) -> Tensor:
        """The network's logits `[n, V]` of states `[n, D]` that its body gave."""
        if self.part is None:
            return states
        places = torch.zeros(1, len(states), dtype=torch.int64, device=states.device)
        output = (states[None],) if self.kind is tuple else self.kind(last_hidden_state=states[None])
        with _answering(self.part, output):
            return logits(self.model(input_ids=places, **_uncached(self.model)))[0]


@contextmanager
def _answering(part: nn.Module, output: Any) -> Iterator[None]:
    part.forward = lambda *a, **k: output
    try:
        yield
    finally:
        del part.forward  # the class's own again


def _uncached(model: nn.Module) -> dict[str, bool]:
    """Without a cache of keys and values: every window is read once."""
    return {"use_cache": False} if hasattr(getattr(model, "config", None), "use_cache") else {}


def _outside(model: nn.Module, part: nn.Module) -> tuple[str, ...]:
    inside = {id(module) for module in part.modules()}
    own = (
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules(remove_duplicate=False)
        if id(module) not in inside
        for name, _ in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
    )
    held = model.state_dict(keep_vars=True)
    return tuple(name for name in own if name in held)
