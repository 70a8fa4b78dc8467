"""What must be so before an ensemble writes: the network, the prompts, room in the context and in memory.

room     prompt + new tokens <= context; behind an encoder each of the two
memory   K * (caches, words of a token, and what a member has for itself) <= free
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from pluria.core.calling import place
from pluria.core.ensemble import Ensemble
from pluria.core.model import tensors
from pluria.core.params import check_fit
from pluria.language.average import RULES
from pluria.language.memory import free_bytes, refuse_members
from pluria.language.rows import unserved
from pluria.language.steps import Backend, decoder_start, member_bytes, moving
from pluria.language.tokens import check_vocabulary, context_of, tokens_of
from pluria.predict.kernels.product import fast

Asked = Literal["auto", "loop", "side_by_side", "rows"]
BACKENDS = ("auto", "loop", "side_by_side", "rows")
FEWEST = 3
"""Members from which on rows are faster than networks side by side."""

Prompt = str | Tensor | Sequence[int]


@dataclass(frozen=True, eq=False)
class Ready:
    """Prompts, int64 `[P]` each; how members run, bytes that one of them takes, and bytes that are free, if known."""

    prompts: tuple[Tensor, ...]
    backend: Backend
    each: int
    free: int | None


def checked(
    model: nn.Module,
    ensemble: Ensemble,
    prompts: Sequence[Prompt],
    *,
    tokenizer: Any,
    max_new_tokens: int,
    pool: str,
    backend: Asked,
    available: int | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> Ready:
    """Every check that `generate` makes, before any work; arguments and errors are its own."""
    check_network(model)
    _check(pool, backend, max_new_tokens)
    if isinstance(prompts, str | Tensor) or not len(prompts):
        raise ValueError(f"prompts are a list of one or more; got {prompts!r}")
    tokens = tuple(_prompt(model, prompt, tokenizer, max_new_tokens) for prompt in prompts)
    check_fit(ensemble.outline(), tensors(model), what="the ensemble")
    where = place(model) if device is None else torch.device(device)
    free = free_bytes(where) if available is None else available
    sizes: dict[str, Any] = {"read": max(map(len, tokens)), "new": max_new_tokens, "batch": len(tokens)}
    sizes["width"] = torch.empty(0, dtype=dtype or _dtype(model)).element_size()
    ways = _ways(model, ensemble, backend, where)
    for took in ways:
        each = member_bytes(model, ensemble, backend=took, **sizes)
        if took == ways[-1] or (free is not None and 2 * len(ensemble) * each <= free):  # half is left to others
            break
    hint = "shorter or fewer texts at a time" if took == "loop" else "backend='loop', which holds one"
    refuse_members(len(ensemble), each, free, instead=hint)
    return Ready(tokens, took, each, free)


def _ways(model: nn.Module, ensemble: Ensemble, asked: Asked, device: torch.device) -> list[Backend]:
    """What is to be tried, the fastest first; the last is taken whatever it needs."""
    if asked != "auto":
        return [asked]
    rows = len(ensemble) >= FEWEST and fast(device) and unserved(model, moving(model, ensemble)) is None
    return ["rows", "side_by_side", "loop"] if rows else ["side_by_side", "loop"]


def _check(pool: str, backend: str, most: int) -> None:
    if pool not in RULES:
        raise ValueError(f"pool is {' or '.join(map(repr, RULES))}; got {pool!r}")
    if backend not in BACKENDS:
        raise ValueError(f"backend is {' or '.join(map(repr, BACKENDS))}; got {backend!r}")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ValueError(f"max_new_tokens is a whole number from 1; got {most!r}")


def check_network(model: nn.Module) -> None:
    """Raise ValueError for a network that writes no text, or keeps no keys and values."""
    config, name = getattr(model, "config", None), type(model).__name__
    if config is None or not getattr(model, "can_generate", lambda: False)():
        raise ValueError(f"{name} does not write text: give a causal language model or an encoder-decoder")
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise ValueError(f"{name} has no cache of keys and values, which each member needs one of its own")


def _prompt(model: nn.Module, prompt: Prompt, tokenizer: Any, most: int) -> Tensor:
    """The prompt's tokens `[P]`, int64, for which there is room."""
    if tokenizer is not None:
        check_vocabulary(tokenizer, model)
    elif isinstance(prompt, str):
        raise ValueError("a text needs the tokenizer that reads it: give tokenizer=, or tokens")
    tokens = tokens_of(tokenizer, prompt) if isinstance(prompt, str) else torch.as_tensor(prompt).cpu()
    if tokens.ndim != 1 or not len(tokens):
        raise ValueError(f"a prompt has one token or more, [P]; got {[*tokens.shape]}")
    rows = len(model.get_input_embeddings().weight)  # type: ignore[operator]
    if tokens.is_floating_point() or not 0 <= int(tokens.min()) <= int(tokens.max()) < rows:
        raise ValueError(f"tokens are whole numbers 0..{rows - 1}; got {tokens.tolist()[:8]}")
    _room(context_of(model), len(tokens), most, apart=decoder_start(model) is not None)
    return tokens.long()


def _room(own: int | None, read: int, most: int, *, apart: bool) -> None:
    """Refuse a prompt and new tokens that are longer than the network reads; `apart`, each of the two."""
    if own is None or (max(read, most) if apart else read + most) <= own:
        return
    room = own - (0 if apart and read <= own else read)
    what = f"leaves room for {room} new ones: ask for no more" if room > 0 else "leaves none for new ones: shorten it"
    raise ValueError(f"the network reads {own} tokens at once, and a prompt of {read} {what}; got {most}")


def _dtype(model: nn.Module) -> torch.dtype:
    """The dtype of the network's first floating tensor."""
    kinds = (value.dtype for value in model.state_dict().values() if value.is_floating_point())
    return next(kinds, torch.float32)
