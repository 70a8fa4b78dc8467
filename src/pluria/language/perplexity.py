"""Perplexity of an ensemble on a text, token by token: members' probabilities, or logits, are averaged at each token.

    nats = -1/T sum_t log p(token t | tokens before it)        perplexity = exp(nats)
    mutual information = mean_t [ H(mean_k p_kt) - mean_k H(p_kt) ]
    agreement = mean_t of the share of members whose most probable token is the pooled one

A long text is read in windows that slide over it: pluria.language.tokens. Calibration is that of the most probable next
token. Sources: Jelinek et al., J. Acoust. Soc. Am. 1977 (perplexity); Guo et al., ICML 2017 (calibration).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble
from pluria.language.average import Averaged, Rule, averages, batched, entropy, pooled_log_probs
from pluria.language.tokens import Windows, check_vocabulary, context_of, tokens_of, windows
from pluria.score.calibration import top_reliability


@dataclass(frozen=True, eq=False)
class TokenScores:
    """What was said of each predicted token, in the order of the text, float64.

    windows     the window that predicted it, int64 `[T]`
    log_probs   pooled log-probability of the token `[T]`;  member_log_probs   of every member `[K, T]`
    confidence, right   probability of the most probable token, and whether it is the token `[T]`
    mutual_information   mean KL(p_k || pooled) in nats; pooled by logits: mean KL(pooled || p_k), the ambiguity `[T]`
    agreement   weight of the members whose most probable token is the pooled one `[T]`
    entropy     of the pooled prediction in nats `[T]`
    """

    windows: Tensor
    log_probs: Tensor
    member_log_probs: Tensor
    confidence: Tensor
    right: Tensor
    mutual_information: Tensor
    agreement: Tensor
    entropy: Tensor


@dataclass(frozen=True)
class Perplexity:
    """Figures of a text: nats for each token, their mean over members, and calibration of the top next token."""

    tokens: int
    members: int
    nats: float
    member_nats: float
    ece: float
    accuracy: float
    confidence: float
    mutual_information: float
    agreement: float

    @property
    def perplexity(self) -> float:
        """exp(nats); infinite where that is too large a number."""
        return math.exp(self.nats) if self.nats < 700 else math.inf


def perplexity(
    model: nn.Module,
    ensemble: Ensemble,
    text: str | Tensor,
    *,
    tokenizer: Any = None,
    context: int | None = None,
    stride: int | None = None,
    pool: Rule = "probability",
    temperature: float = 1.0,
    batch: int = 1,
    block: int = 256,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Perplexity:
    """Perplexity and calibration of the ensemble of a causal language model on a text.

    text      a text with the `tokenizer` that reads it, or tokens, integers `[T]`
    context   tokens that are read at once; the network's own by default, at most 2,048
    stride    tokens from one window to the next, half of the context by default; each token is predicted once, from
              context - stride tokens or more
    pool      "probability" or "logit": what is averaged at each token
    temperature   that of `fit_token_temperature` on another text: it scales what is pooled, and the members' own
              figures, mutual information and agreement stay as they are
    batch, block   windows run at once, and tokens whose words stand in memory at once
    device, dtype  of the working copy

    Raises ValueError for a network that is no causal language model, a text that is empty or given without a tokenizer,
    fewer than two tokens, a context beyond the network's, a stride beyond the context, more members than memory holds;
    CheckpointError where tokenizer and network, or ensemble and network, disagree.
    """
    slid = slide(model, text, tokenizer=tokenizer, context=context, stride=stride)
    how: dict[str, Any] = {"pool": pool, "temperature": temperature, "batch": batch, "block": block}
    found = token_scores(model, ensemble, slid, device=device, dtype=dtype, **how)
    return summary(found[len(ensemble)])


def slide(
    model: nn.Module,
    text: str | Tensor,
    *,
    tokenizer: Any = None,
    context: int | None = None,
    stride: int | None = None,
) -> Windows:
    """Windows over a text, no longer than the network reads; arguments and errors as for `perplexity`."""
    config = getattr(model, "config", None)
    if getattr(model, "can_generate", lambda: True)() is False or getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{type(model).__name__} does not say the next token of a text: give a causal language model")
    if isinstance(text, str):
        if tokenizer is None:
            raise ValueError("a text needs the tokenizer that reads it: give tokenizer=, or tokens")
        check_vocabulary(tokenizer, model)
    tokens = tokens_of(tokenizer, text) if isinstance(text, str) else torch.as_tensor(text)
    own = context_of(model)
    if context is not None and own is not None and context > own:
        raise ValueError(f"the network reads {own} tokens at once, so a context of {context} is too long")
    return windows(tokens, context=context or min(own or LONGEST, LONGEST), stride=stride)


LONGEST = 2048
"""The longest context that is taken unasked."""


def token_scores(
    model: nn.Module,
    ensemble: Ensemble,
    slid: Windows,
    *,
    pool: Rule = "probability",
    temperature: float = 1.0,
    sizes: Sequence[int] | None = None,
    batch: int = 1,
    block: int = 256,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> Mapping[int, TokenScores]:
    """What the first K members say of each predicted token, for every K of `sizes` (all members by default).

    temperature   scales what is pooled; ValueError where it is not positive and finite

    All else as for `perplexity`.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"a temperature is positive and finite; got {temperature}")
    batches = batched(slid.tokens, slid.targets, batch)
    options: dict[str, Any] = {"rule": pool, "sizes": sizes, "block": block, "device": device, "dtype": dtype}
    parts: dict[int, list[TokenScores]] = {}
    length = slid.tokens.shape[1]
    for number, found in averages(model, ensemble, batches, **options):
        rows = number * batch + torch.div(found.places, length, rounding_mode="floor")
        parts.setdefault(found.members, []).append(_scores(found, rows, pool, temperature))
    names = list(TokenScores.__dataclass_fields__)
    return {
        size: TokenScores(*(torch.cat([getattr(one, name) for one in several], dim=-1) for name in names))
        for size, several in parts.items()
    }


def summary(scores: TokenScores) -> Perplexity:
    """The means of the tokens' scores."""
    return Perplexity(
        tokens=len(scores.log_probs),
        members=len(scores.member_log_probs),
        nats=-float(scores.log_probs.mean()),
        member_nats=-float(scores.member_log_probs.mean()),
        ece=top_reliability(scores.confidence, scores.right).ece,
        accuracy=float(scores.right.double().mean()),
        confidence=float(scores.confidence.mean()),
        mutual_information=float(scores.mutual_information.mean()),
        agreement=float(scores.agreement.mean()),
    )


def _scores(found: Averaged, rows: Tensor, pool: Rule, temperature: float) -> TokenScores:
    """The scores of one block of tokens, `rows` their windows."""
    weights, top = found.weights[:, None], found.pooled.argmax(-1)
    log_probs, pooled = pooled_log_probs(found, pool), entropy(found.pooled)
    if pool == "probability":
        apart = pooled - (weights * found.entropies).sum(0)
    else:
        apart = log_probs - (weights * found.log_probs).sum(0)  # the ambiguity, the same whatever the token is
    words = found.pooled
    if temperature != 1.0:
        words = (words / temperature).log_softmax(-1)
        log_probs, pooled = words.gather(-1, found.targets[:, None])[:, 0].double(), entropy(words)
    return TokenScores(
        windows=rows,
        log_probs=log_probs,
        member_log_probs=found.log_probs,
        confidence=words.amax(-1).double().exp().clamp(max=1.0),
        right=top == found.targets,
        mutual_information=apart.clamp(min=0.0),  # below zero by rounding only
        agreement=(weights * (found.tops == top)).sum(0),
        entropy=pooled,
    )
