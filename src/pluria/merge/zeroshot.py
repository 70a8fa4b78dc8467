"""What each of several adapters should count on texts of a new domain, without training: scores to weights.

    sentences   max(0, mean cosine of the domain's and the texts' sentence vectors)
    tf-idf      cosine of the domain's and the texts' word counts, each as one document
    prior       w <- (1 - a) w + a p(j | x), p(j | x) proportional to p_j(x), over the texts x, from equal weights
    entropy     sum_i u_i - u_j, of the members' mean entropies u
    top k       the k largest, divided by their sum; or 1/k each

Weights `[K]` go to `Ensemble.reweight`, for an average of params (`leafwise`, `linear`) or a pool of outputs. Source:
Holtermann et al., "What the weight?! A unified framework for zero-shot knowledge composition", EACL 2024; word counts
are not stemmed here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from pluria.core.weights import checked_weights

Encoder = Callable[[list[str]], "Tensor | np.ndarray[tuple[int, ...], np.dtype[np.floating]]"]
"""Texts to vectors `[N, D]`, such as the `encode` of a model of sentence-transformers."""


def sentence_scores(domains: Sequence[Sequence[str]], texts: Sequence[str], encode: Encoder) -> Tensor:
    """Scores `[K]` by sentence vectors, for some texts of each domain and of the new one."""
    _check(domains, texts)

    def direction(several: Sequence[str]) -> Tensor:
        vectors = torch.as_tensor(encode(list(several))).to(torch.float64)
        return torch.nn.functional.normalize(vectors, dim=1).mean(0)

    # The mean of all pairs' cosines is the inner product of the mean unit vectors.
    new = direction(texts)
    return torch.stack([direction(each) @ new for each in domains]).clamp(min=0)


def tfidf_scores(domains: Sequence[Sequence[str]], texts: Sequence[str]) -> Tensor:
    """Scores `[K]` by words, without English stop words; needs scikit-learn."""
    _check(domains, texts)
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
    except ImportError:
        raise ImportError("tf-idf is scikit-learn's: pip install 'pluria[sklearn]'") from None
    documents = [" ".join(each) for each in (*domains, texts)]
    rows = TfidfVectorizer(stop_words="english").fit_transform(documents)
    return torch.as_tensor((rows[:-1] @ rows[-1].T).toarray()[:, 0])


def prior_weights(likelihoods: Tensor, *, rate: float = 0.3) -> Tensor:
    """Weights `[K]` from log-likelihoods `[K, N]` of N whole texts under each member, in their order.

    rate   what the newest text counts, in (0, 1]

    Whole texts differ by many nats, so this picks single members. The last texts decide: shuffle them first.
    """
    if likelihoods.ndim != 2 or not 0 < rate <= 1:
        raise ValueError(f"give log-likelihoods [K, N] and a rate in (0, 1]; got {list(likelihoods.shape)} and {rate}")
    posterior = likelihoods.detach().to(torch.float64).softmax(0)
    weights = torch.full((len(posterior),), 1 / len(posterior), dtype=torch.float64)
    for column in posterior.T:
        weights = (1 - rate) * weights + rate * column
    return weights


def entropy_weights(entropies: Tensor) -> Tensor:
    """Weights `[K]` from mean entropies `[K]` on the new domain: who is surer counts more.

    >>> entropy_weights(torch.tensor([1.0, 2.0, 3.0])) * 12
    tensor([5., 4., 3.], dtype=torch.float64)
    """
    wide = checked_weights(entropies)
    return top_k(wide.sum() - wide, len(wide))


def top_k(scores: Tensor, count: int, *, uniform: bool = False) -> Tensor:
    """Weights `[K]` of sum one: the `count` largest scores, or with `uniform` 1/count each; the others zero.

    Of equal scores the first are taken; where all are zero the weights are equal. Raises ValueError for scores that are
    negative or not finite, and for a count that is not 1..K.

    >>> top_k(torch.tensor([1.0, 4.0, 0.0, 4.0]), 2)
    tensor([0.0000, 0.5000, 0.0000, 0.5000], dtype=torch.float64)
    """
    wide = checked_weights(scores)
    if not 1 <= count <= len(wide):
        raise ValueError(f"between one and all {len(wide)} members are taken; got {count}")
    chosen = wide.sort(descending=True, stable=True).indices[:count]
    kept = torch.zeros_like(wide)
    kept[chosen] = 1.0 if uniform else wide[chosen]
    total = float(kept.sum())
    return kept / total if total > 0 else torch.full_like(wide, 1 / len(wide))


def _check(domains: Sequence[Sequence[str]], texts: Sequence[str]) -> None:
    if isinstance(texts, str) or any(isinstance(each, str) for each in domains):
        raise TypeError("give lists of texts, not a single text; write [text]")
    if not domains or not texts or not all(domains):
        raise ValueError("a domain has no texts, so it has no score; give one or more of each, and of the new domain")
