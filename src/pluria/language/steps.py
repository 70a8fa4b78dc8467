"""Members of a causal language model, some tokens at a time, each with a cache of keys and values of its own.

    logits of the next token [K, V] = steps(tokens [1, n])      tokens of earlier steps are in the caches

loop           one working copy; each member is written into it before its step. A member costs its cache
side_by_side   what differs between members is held K times, and nothing is written while tokens come
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pluria.core.calling import place
from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, Shared
from pluria.core.model import tensors
from pluria.language.plan import free_memory
from pluria.predict.batches import logits
from pluria.store.pretrained import hugging_face

Backend = Literal["loop", "side_by_side"]
BACKENDS = ("loop", "side_by_side")


class Steps:
    """Members that read tokens step by step. `twin` is a working copy that is theirs alone."""

    def __init__(self, twin: nn.Module, ensemble: Ensemble, backend: Backend) -> None:
        own, library = tensors(twin), hugging_face()
        ensemble.write(ensemble.members[0], own)  # what members share is in its place from here on
        self.twin, self.device, self.length = twin, place(twin), 0
        self.caches = [library.DynamicCache(config=twin.config) for _ in ensemble.members]
        self.runs = (_written if backend == "loop" else _held)(twin, ensemble)
        keeps = "logits_to_keep" in inspect.signature(twin.forward).parameters
        self.options: dict[str, Any] = {"logits_to_keep": 1} if keeps else {}

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits of the token that follows, float64 `[K, V]` on the CPU, of new tokens `[1, n]`."""
        tokens, self.length = tokens.to(self.device), self.length + tokens.shape[-1]
        seen = torch.ones(1, self.length, dtype=torch.int64, device=self.device)
        named = {"input_ids": tokens, "attention_mask": seen, "use_cache": True, **self.options}
        rows = []
        with torch.no_grad():
            for run, cache in zip(self.runs, self.caches, strict=True):
                rows.append(logits(run(past_key_values=cache, **named))[0, -1].double().cpu())
        if self.caches[0].get_seq_length() != self.length:
            raise ValueError(
                f"{type(self.twin).__name__} does not keep the tokens it has read in the cache it is given"
            )
        return torch.stack(rows)


def member_bytes(model: nn.Module, ensemble: Ensemble, tokens: int, *, backend: Backend, width: int) -> int:
    """What one more member takes: its cache for so many tokens and, side by side, its own tensors.

    width   bytes of a number of the working copy
    """
    own = sum(family.shape.numel() for family in _moving(tensors(model), ensemble).values())
    return _cached(model, tokens) * width + (own * width if backend == "side_by_side" else 0)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that may be taken on a device; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


def _written(twin: nn.Module, ensemble: Ensemble) -> list[Callable[..., Any]]:
    """The working copy for each member, after the member is written into it."""
    own = tensors(twin)
    moving = _moving(own, ensemble)

    def after(member: int) -> Callable[..., Any]:
        def run(**named: Any) -> Any:
            with torch.no_grad():
                for name, family in moving.items():
                    family.write(member, own[name])
            return twin(**named)

        return run

    return [after(member) for member in ensemble.members]


def _held(twin: nn.Module, ensemble: Ensemble) -> list[Callable[..., Any]]:
    """The working copy for each member, with tensors that the member has for itself."""
    own = tensors(twin)
    moving = _moving(own, ensemble)

    def given(member: int) -> Callable[..., Any]:
        params = {name: torch.empty_like(own[name]) for name in moving}
        for name, family in moving.items():
            family.write(member, params[name])
        return lambda **named: functional_call(twin, params, (), named)

    with torch.no_grad():
        return [given(member) for member in ensemble.members]


def _moving(own: Any, ensemble: Ensemble) -> dict[str, Family]:
    """What differs between members, one name for each tensor."""
    names = {id(own[name]): name for name in reversed(list(ensemble.families))}.values()
    return {name: found for name in names if not isinstance(found := ensemble.families[name], Shared)}


def _cached(model: nn.Module, tokens: int) -> int:
    """Numbers in one cache of so many tokens; 0 where the configuration does not say."""
    settings: Any = model.config
    config = settings.get_text_config(decoder=True)
    layers, heads = getattr(config, "num_hidden_layers", None), getattr(config, "num_attention_heads", None)
    width = getattr(config, "hidden_size", None)
    if not layers or not heads or not width:
        return 0
    size = getattr(config, "head_dim", None) or width // heads
    return 2 * int(layers) * int(getattr(config, "num_key_value_heads", None) or heads) * int(size) * tokens
