"""Members of a language model that writes, some tokens at a time, each with a cache of keys and values of its own.

    logits of the next token [K, B, V] = steps(tokens [B, n], mask [B, n])        earlier tokens are in the caches

loop           one working copy; each member is written into it before its step. A member costs its cache
side_by_side   what differs between members is held K times, and nothing is written while tokens come
rows           members are rows of one batch with one cache, and their weights are read once for eight (`rows.py`)

Behind an encoder the first tokens are the text it reads, and the decoder starts from its own first token; each member
keeps what its encoder said.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pluria.core.calling import place
from pluria.core.ensemble import Ensemble
from pluria.core.family import Family, Shared
from pluria.core.model import tensors
from pluria.language.memory import cache_numbers
from pluria.language.rows import Unlike, in_rows, unserved
from pluria.predict.batches import logits
from pluria.predict.kernels.operands import BYTE
from pluria.store.pretrained import hugging_face

Backend = Literal["loop", "side_by_side", "rows"]
TOLERANCE = 0.05
"""How far rows may be from what the first member says by itself, of its spread: 16 bits are some 1e-2 apart."""

WORD = 16
"""Bytes of a word while a token is chosen: its logit and its log-probability, in float64."""


@dataclass
class _Member:
    """How a member is run, and what it keeps."""

    run: Callable[..., Any]
    cache: Any
    read: dict[str, Any] = field(default_factory=dict)


class Steps:
    """Members that read tokens step by step. `twin` is a working copy that is theirs alone."""

    def __init__(self, twin: nn.Module, ensemble: Ensemble, backend: Backend) -> None:
        ensemble.write(ensemble.members[0], tensors(twin))  # what members share is in its place from here on
        self.twin, self.device, self.start, self.length = twin, place(twin), decoder_start(twin), 0
        self.count = len(ensemble)
        self.members = [_Member(run, _cache(twin)) for run in RUNS[backend](twin, ensemble)]
        self.takes = inspect.signature(twin.forward).parameters
        self.mask = torch.empty(0)

    def __call__(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Logits of the token that follows, float64 `[K, B, V]` on the CPU, of new tokens `[B, n]`.

        mask   of the first tokens, int64: 0 where a text is padded. Later ones are read by all
        """
        copies = self.count // len(self.members)  # all members are rows of one, or each is run by itself
        tokens = tokens.to(self.device).repeat(copies, 1)
        mask = torch.ones_like(tokens) if mask is None else mask.to(self.device).repeat(copies, 1)
        named = self._alone(tokens, mask) if self.start is None else self._behind(tokens, mask)
        with torch.no_grad():
            rows = [self._said(member, named) for member in self.members]
        if self.members[0].cache.get_seq_length() != self.length:
            name = type(self.twin).__name__
            raise ValueError(f"{name} does not keep the tokens it has read in the cache it is given")
        together = torch.cat(rows)
        return together.view(self.count, -1, together.shape[-1])

    def _said(self, member: _Member, named: dict[str, Any]) -> Tensor:
        output = member.run(past_key_values=member.cache, **named, **member.read)
        if self.start is not None and not member.read:
            states = hugging_face().modeling_outputs.BaseModelOutput(output.encoder_last_hidden_state)
            member.read = {"encoder_outputs": states}
        return logits(output)[:, -1].double().cpu()

    def _alone(self, tokens: Tensor, mask: Tensor) -> dict[str, Any]:
        """Arguments of a network that reads what it writes."""
        self.mask = mask if self.length == 0 else torch.cat([self.mask, mask], dim=1)
        self.length += tokens.shape[-1]
        named: dict[str, Any] = {"input_ids": tokens, "attention_mask": self.mask, "use_cache": True}
        if "logits_to_keep" in self.takes:
            named["logits_to_keep"] = 1
        if "position_ids" in self.takes:  # counted from where a text begins, not its padding
            named["position_ids"] = (self.mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[-1] :]
        return named

    def _behind(self, tokens: Tensor, mask: Tensor) -> dict[str, Any]:
        """Arguments of a decoder behind an encoder: the first tokens are the encoder's."""
        first = {} if self.length else {"input_ids": tokens}
        if first:
            self.mask, tokens = mask, torch.full_like(tokens[:, :1], self.start or 0)
        self.length += tokens.shape[-1]
        return {**first, "attention_mask": self.mask, "decoder_input_ids": tokens, "use_cache": True}


def decoder_start(model: nn.Module) -> int | None:
    """The token from which a decoder behind an encoder starts; None for a network without an encoder.

    Raises ValueError where the network's settings do not say.
    """
    if not getattr(model.config, "is_encoder_decoder", False):
        return None
    settings = (getattr(model, "generation_config", None), model.config)
    for name in ("decoder_start_token_id", "bos_token_id"):
        if (found := next((one for s in settings if (one := getattr(s, name, None)) is not None), None)) is not None:
            return int(found)
    raise ValueError(f"{type(model).__name__} has no decoder_start_token_id, from which its decoder would start")


def member_bytes(
    model: nn.Module, ensemble: Ensemble, *, read: int, new: int, batch: int, backend: Backend, width: int
) -> int:
    """What one more member takes: its caches, its words of one token and, side by side, its own tensors.

    read, new   tokens of the longest prompt, and tokens to be written;   width   bytes of a number of the working copy
    """
    settings: Any = model.config
    both = bool(getattr(settings, "is_encoder_decoder", False))
    config = (settings if both else settings.get_text_config(decoder=True)).to_dict()
    cache = cache_numbers(config, new if both else read + new, read=read)
    weights = 0 if backend == "loop" else sum(family.shape.numel() for family in moving(model, ensemble).values())
    held = weights * width
    if backend == "rows":  # a byte of floor codes for all, and one of bits for eight
        held = -(-weights * (1 + -(-len(ensemble) // BYTE)) // len(ensemble))
    return cache * batch * width + held + (config.get("vocab_size") or 0) * batch * WORD


def _cache(twin: nn.Module) -> Any:
    library, config = hugging_face(), twin.config
    if decoder_start(twin) is None:
        return library.DynamicCache(config=config)
    return library.EncoderDecoderCache(library.DynamicCache(config=config), library.DynamicCache(config=config))


def _written(twin: nn.Module, ensemble: Ensemble) -> list[Callable[..., Any]]:
    """The working copy for each member, after the member is written into it, where another one is in it."""
    own, inside = tensors(twin), [ensemble.members[0]]
    families = moving(twin, ensemble)

    def after(member: int) -> Callable[..., Any]:
        def run(**named: Any) -> Any:
            if inside != [member]:
                for name, family in families.items():
                    family.write(member, own[name])
                inside[0] = member
            return twin(**named)

        return run

    return [after(member) for member in ensemble.members]


def _held(twin: nn.Module, ensemble: Ensemble) -> list[Callable[..., Any]]:
    """The working copy for each member, with tensors that the member has for itself."""
    own = tensors(twin)
    families = moving(twin, ensemble)

    def given(member: int) -> Callable[..., Any]:
        params = {name: torch.empty_like(own[name]) for name in families}
        for name, family in families.items():
            family.write(member, params[name])
        return lambda **named: functional_call(twin, params, (), named)

    with torch.no_grad():
        return [given(member) for member in ensemble.members]


def _in_rows(twin: nn.Module, ensemble: Ensemble) -> list[Callable[..., Any]]:
    """The working copy for all members at once. What the first member says of the first tokens is checked."""
    families, count = moving(twin, ensemble), len(ensemble)
    swapped: list[bool] = []
    if why := unserved(twin, families):
        raise ValueError(f"members cannot be rows of one batch: {why}")

    def run(past_key_values: Any, **named: Any) -> Any:
        if swapped:
            return twin(past_key_values=past_key_values, **named)
        own = {name: x[: len(x) // count] if isinstance(x, Tensor) else x for name, x in named.items()}
        wanted = logits(twin(past_key_values=_cache(twin), **own))[:, -1]  # the copy still is the first member
        in_rows(twin, ensemble, families)
        swapped.append(True)
        try:
            output = twin(past_key_values=past_key_values, **named)
            got = logits(output)[: len(wanted), -1]
        except AttributeError as error:  # a network that reads a weight past its layer
            raise Unlike(f"members cannot be rows of one batch: {error}. Give backend='side_by_side'") from error
        if not (got - wanted).norm() <= TOLERANCE * (wanted - wanted.mean()).norm():
            name = type(twin).__name__
            raise Unlike(f"as rows of one batch members of {name} say something else. Give backend='side_by_side'")
        return output

    return [run]


RUNS: dict[Backend, Callable[[nn.Module, Ensemble], list[Callable[..., Any]]]] = {
    "loop": _written,
    "side_by_side": _held,
    "rows": _in_rows,
}


def moving(model: nn.Module, ensemble: Ensemble) -> dict[str, Family]:
    """What differs between members, one name for each tensor."""
    own = tensors(model)
    names = {id(own[name]): name for name in reversed(list(ensemble.families))}.values()
    return {name: found for name in names if not isinstance(found := ensemble.families[name], Shared)}
