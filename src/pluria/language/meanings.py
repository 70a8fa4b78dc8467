"""Disagreement over meanings (semantic entropy): sampled answers are grouped by what they mean, then counted.

    p_k(m) = share of member k's samples with meaning m                                              discrete
    p_k(m) = sum over them of exp(log p(sample)) / the same over all of k's samples          by likelihood
    p = sum_k w_k p_k        entropy = H(p)        disagreement = H(p) - sum_k w_k H(p_k)

`same(a, b)` says whether two answers mean the same. Each answer is compared with the first one of every group, in the
order given, and joins the first group that fits; so `same` should be symmetric and transitive, and an entailment model
that is neither makes groups that depend on the order. The disagreement is what members differ in beyond what each is
unsure of itself; with one member it is zero. By likelihood a sequence that was sampled twice counts twice, as in the
source; give log-probabilities for each token on average where long answers should not be punished for their length.
Sources: Kuhn, Gal and Farquhar, ICLR 2023; Farquhar et al., Nature 2024.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.core.weights import checked_weights
from pluria.language.votes import shares_of, tidy

Same = Callable[[str, str], bool]


@dataclass(frozen=True, eq=False)
class Meanings:
    """Groups of answers and how far they are apart; entropies in nats, float64.

    meanings         the first answer of every group
    groups           the group of every sample, `groups[k][s]`
    member_shares    p_k, `[K, M]`;   shares   p, `[M]`
    entropy, member_entropies, disagreement   H(p), H(p_k) `[K]`, and the difference to the members' mean
    """

    meanings: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    member_shares: Tensor
    shares: Tensor
    entropy: float
    member_entropies: Tensor
    disagreement: float


def meanings(
    samples: Sequence[Sequence[str]],
    weights: Tensor | None = None,
    *,
    same: Same | None = None,
    log_probs: Sequence[Sequence[float]] | None = None,
) -> Meanings:
    """Groups the answers of K members by meaning; `samples[k]` are those of member k, as many as there are.

    weights     of the members, `[K]`, equal by default; they are normalised
    same        whether two answers mean the same; `same_words` by default
    log_probs   of every sample, in nats: by likelihood; without them, discrete

    Raises ValueError for no member, a member without a sample, an empty answer, log-probabilities that do not fit the
    samples or leave a member without a possible one, and weights that are negative, not finite or all zero.

    >>> found = meanings([["Paris", "paris."], ["Lyon", "Paris"]])
    >>> found.meanings, found.shares.tolist()
    (('Paris', 'Lyon'), [0.75, 0.25])
    """
    if not samples:
        raise ValueError("samples of one member or more are wanted")
    spread = [shares_of(1.0, own) for own in samples]
    likely = spread if log_probs is None else [_likelihoods(*pair) for pair in _paired(samples, log_probs)]
    flat = group([answer for own in samples for answer in own], same or same_words)
    starts = [sum(len(own) for own in samples[:k]) for k in range(len(samples))]
    groups = tuple(tuple(flat[start : start + len(own)]) for start, own in zip(starts, samples, strict=True))
    table = torch.zeros(len(samples), max(flat) + 1, dtype=torch.float64)
    for row, found, shares in zip(table, groups, likely, strict=True):
        row.index_add_(0, torch.tensor(found), torch.tensor(shares, dtype=torch.float64))
    mixing = _weights(weights, len(samples))
    shared = mixing @ table
    inner = torch.special.entr(table).sum(-1)
    entropy = float(torch.special.entr(shared).sum())
    first = tuple(answer for own in samples for answer in own)
    apart = max(0.0, entropy - float(mixing @ inner))  # below zero by rounding only
    return Meanings(
        tuple(first[flat.index(m)] for m in range(max(flat) + 1)), groups, table, shared, entropy, inner, apart
    )


def group(answers: Sequence[str], same: Same) -> list[int]:
    """The group of every answer, numbered in the order of their first answers; ValueError for an empty answer.

    >>> group(["4", "four", "4."], lambda a, b: a.strip(".") == b.strip("."))
    [0, 1, 0]
    """
    first: list[str] = []
    found = []
    for answer in answers:
        if not isinstance(answer, str) or not answer.strip():
            raise ValueError(
                f"an empty answer has no meaning: leave it out, or write what it stands for; got {answer!r}"
            )
        fits = next((m for m, other in enumerate(first) if same(other, answer)), len(first))
        first += [answer] if fits == len(first) else []
        found.append(fits)
    return found


def same_words(first: str, second: str) -> bool:
    """Whether two answers are equal but for case, blanks, punctuation at the ends and a leading article."""
    return tidy(first) == tidy(second)


def both_ways(entails: Callable[[str, str], bool]) -> Same:
    """Equivalence by a model of your own: two answers mean the same where each entails the other.

    `entails(premise, conclusion)` is asked twice, or once where the first answer is no.
    """
    return lambda first, second: entails(first, second) and entails(second, first)


def _paired(
    samples: Sequence[Sequence[str]], log_probs: Sequence[Sequence[float]]
) -> list[tuple[Sequence[str], Sequence[float]]]:
    counts = [len(own) for own in samples], [len(own) for own in log_probs]
    if counts[0] != counts[1]:
        raise ValueError(f"each sample has a log-probability: {counts[0]} samples, {counts[1]} log-probabilities")
    return list(zip(samples, log_probs, strict=True))


def _likelihoods(own: Sequence[str], log_probs: Sequence[float]) -> list[float]:
    """Likelihoods of one member's samples, which sum to one."""
    top = max(log_probs)
    if any(math.isnan(value) for value in log_probs) or not math.isfinite(top):
        raise ValueError(f"log-probabilities of {len(own)} samples have no finite largest one: {list(log_probs)[:8]}")
    raw = [math.exp(value - top) for value in log_probs]
    return [value / math.fsum(raw) for value in raw]


def _weights(weights: Tensor | None, count: int) -> Tensor:
    found = checked_weights(torch.ones(count) if weights is None else torch.as_tensor(weights))
    if found.shape != (count,) or not float(found.sum()) > 0:
        raise ValueError(f"weights are [{count}], one for each member, and one is positive; got {found.tolist()}")
    return found / found.sum()
