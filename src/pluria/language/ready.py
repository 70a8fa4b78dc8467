"""What must be so before an ensemble writes: the network, the prompt, room in the context and in memory.

room     prompt + new tokens <= context          memory     K * (a cache + what a member has for itself) <= free
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.calling import place
from pluria.core.ensemble import Ensemble
from pluria.core.model import tensors
from pluria.core.params import check_fit
from pluria.language.average import RULES
from pluria.language.plan import readable
from pluria.language.steps import BACKENDS, Backend, free_bytes, member_bytes
from pluria.language.tokens import check_vocabulary, context_of, tokens_of


def checked_prompt(
    model: nn.Module,
    ensemble: Ensemble,
    prompt: str | Tensor | Sequence[int],
    *,
    tokenizer: Any,
    max_new_tokens: int,
    pool: str,
    backend: Backend,
    available: int | None,
    device: torch.device | str | None,
    dtype: torch.dtype | None,
) -> Tensor:
    """The prompt's tokens, int64 `[P]`, after every check that `generate` makes; arguments and errors are its own."""
    _check(model, pool, backend, max_new_tokens)
    tokens = _prompt(model, prompt, tokenizer, max_new_tokens)
    check_fit(ensemble.outline(), tensors(model), what="the ensemble")
    where = place(model) if device is None else torch.device(device)
    width = torch.empty(0, dtype=dtype or _dtype(model)).element_size()
    each = member_bytes(model, ensemble, len(tokens) + max_new_tokens, backend=backend, width=width)
    _refuse_large(len(ensemble), each, free_bytes(where) if available is None else available, backend)
    return tokens


def _check(model: nn.Module, pool: str, backend: str, most: int) -> None:
    if pool not in RULES:
        raise ValueError(f"pool is {' or '.join(map(repr, RULES))}; got {pool!r}")
    if backend not in BACKENDS:
        raise ValueError(f"backend is {' or '.join(map(repr, BACKENDS))}; got {backend!r}")
    if isinstance(most, bool) or not isinstance(most, int) or most < 1:
        raise ValueError(f"max_new_tokens is a whole number from 1; got {most!r}")
    config, name = getattr(model, "config", None), type(model).__name__
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{name} is an encoder-decoder, which is not served here: give a causal language model")
    if config is None or not getattr(model, "can_generate", lambda: False)():
        raise ValueError(f"{name} does not write text: give a causal language model of transformers")
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise ValueError(f"{name} has no cache of keys and values, which each member needs one of its own")


def _prompt(model: nn.Module, prompt: str | Tensor | Sequence[int], tokenizer: Any, most: int) -> Tensor:
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
    own = context_of(model)
    if own is not None and len(tokens) + most > own:
        room = own - len(tokens)
        what = (
            f"leaves room for {room} new ones: ask for no more" if room > 0 else "leaves none for new ones: shorten it"
        )
        raise ValueError(f"the network reads {own} tokens at once, and a prompt of {len(tokens)} {what}; got {most}")
    return tokens.long()


def _refuse_large(members: int, each: int, free: int | None, backend: str) -> None:
    if free is None or members * each <= free:
        return
    hint = ", or backend='loop', which holds one" if backend == "side_by_side" else ", or a shorter text"
    raise ValueError(
        f"{members} members take {readable(each)} each and {readable(free)} are free: {free // each} fit. Take "
        f"fewer members{hint}"
    )


def _dtype(model: nn.Module) -> torch.dtype:
    """The dtype of the network's first floating tensor."""
    kinds = (value.dtype for value in model.state_dict().values() if value.is_floating_point())
    return next(kinds, torch.float32)
