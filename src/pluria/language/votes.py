"""Votes over sampled answers (self-consistency): the answer that most of the weight gave, after a normaliser.

    share(a) = sum_i w_i [n(answer i) = a] / sum_i w_i        over answers with n(answer i) not empty

A member that was sampled s_k times has w_k / s_k for each of its answers, so unequal numbers of samples give nobody
more votes. An answer that is None, or empty after the normaliser, is an abstention: it is counted and has no vote.
Sources: Wang et al., Self-consistency, ICLR 2023.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

Normaliser = Callable[[str], str | None]


@dataclass(frozen=True)
class Vote:
    """The outcome: `answer` in its normalised form, and its share of the votes.

    tied        all answers level with it, itself first, in the order in which they were first given
    shares      every answer's share, the largest first; they sum to one
    abstained   share of the weight whose answers were empty, of all weight
    """

    answer: str
    share: float
    tied: tuple[str, ...]
    shares: Mapping[str, float]
    abstained: float


def tidy(text: str) -> str:
    """An answer without what makes no difference: case, width, blanks, punctuation at its ends, a leading article.

    >>> tidy("  The  Eiffel Tower. ")
    'eiffel tower'
    """
    words = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    words = words.strip(" .,;:!?'\"()[]{}*`")
    return re.sub(r"^(a|an|the) (?=.)", "", words)


def last_number(text: str) -> str | None:
    """The last number of an answer, without separators of thousands and closing zeros; None where there is none.

    >>> last_number("so she pays 3 x 400 = $1,200.00.")
    '1200'
    >>> last_number("about 1.5e3")
    '1500'
    """
    found = re.findall(r"-?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,2}(?!\d))?", text)
    if not found:
        return None
    number = f"{Decimal(found[-1].replace(',', '')):f}"
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return "0" if number in ("-0", "") else number


def majority(
    answers: Sequence[str | None], weights: Sequence[float] | None = None, *, normalise: Normaliser = tidy
) -> Vote:
    """The answer that most of the weight gave, of sampled answers.

    weights     one for each answer, not negative, of any positive sum; equal by default
    normalise   what makes two answers equal: equal results; None or an empty one abstains

    Answers that end level: the one that was given first, and `tied` says so. Weights within 1e-12 of the largest are
    level. Raises ValueError where every answer abstains, and for weights that do not fit.

    >>> majority(["Paris", "paris.", "Lyon"]).answer
    'paris'
    """
    given = _weights(weights, len(answers))
    held: dict[str, float] = {}
    for answer, weight in zip(answers, given, strict=True):
        name = None if answer is None else normalise(answer)
        if name and weight > 0:
            held[name] = held.get(name, 0.0) + weight
    if not held:
        raise ValueError(f"none of {len(answers)} answers with a weight says anything after the normaliser")
    total = math.fsum(held.values())
    most = max(held.values())
    tied = tuple(name for name, weight in held.items() if weight >= most - 1e-12 * total)
    ranked = sorted(held.items(), key=lambda item: -item[1])  # stable: equal shares stay in the order of the answers
    shares = {name: weight / total for name, weight in ranked}
    return Vote(tied[0], shares[tied[0]], tied, shares, max(0.0, 1 - total / math.fsum(given)))


def majority_of_members(
    samples: Sequence[Sequence[str | None]], weights: Sequence[float] | None = None, *, normalise: Normaliser = tidy
) -> Vote:
    """The same for the answers of K members, `samples[k]` those of member k, as many as there are.

    weights   of the members; each one's weight is spread evenly over its samples, those that abstain included

    Raises ValueError for a member without a sample, and as `majority` does.

    >>> majority_of_members([["4"] * 8, ["5"], ["5", "5"]]).answer
    '5'
    """
    given = _weights(weights, len(samples))
    spread = [weight for weight, own in zip(given, samples, strict=True) for weight in shares_of(weight, own)]
    return majority([answer for own in samples for answer in own], spread, normalise=normalise)


def shares_of(weight: float, own: Sequence[object]) -> list[float]:
    """A member's weight spread over its samples; ValueError where it has none."""
    if isinstance(own, str) or not own:
        raise ValueError(f"every member has a list of one sample or more; got {own!r}")
    return [weight / len(own)] * len(own)


def _weights(weights: Sequence[float] | None, count: int) -> list[float]:
    found = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(found) != count or count == 0:
        raise ValueError(f"one weight for each of one answer or more is wanted; got {len(found)} for {count}")
    if any(not math.isfinite(w) or w < 0 for w in found) or not sum(found) > 0:
        raise ValueError(f"weights are finite, not negative, and one is positive; got {found[:8]}")
    return found
