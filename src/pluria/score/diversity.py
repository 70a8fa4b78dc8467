"""How members differ, and what of it makes the ensemble better. All figures are in nats or probabilities, per example.

    member_nll     a = sum_k w_k (-log p_k[y])            geometric_nll  c = -log softmax( sum_k w_k log p_k )[y]
    ambiguity      a - c = -log sum_c prod_k p_kc^w_k  >= 0, whatever the target is
    mutual information    H(p_bar) - sum_k w_k H(p_k) = sum_k w_k KL(p_k || p_bar)      p_bar = sum_k w_k p_k
    variance       sum_c sum_k w_k (p_kc - p_bar_c)^2 = mean member Brier score - Brier score of p_bar
    disagreement   share of pairs of different members whose most probable classes differ

All take `MemberSums` of the members' outputs `[K, N, C]` (see `member_sums`), where needed targets `[N]` without
ignored ones, and give float64 `[N]`; targets that are no class are a `ValueError`. Weights are the members'. In the
disagreement a doubled weight is not the same as a member twice, since a member forms no pair with itself: pairs count
by w_k w_j. A single member never disagrees.
Read them next to the mean member loss: diversity bought with worse members is no gain.
Sources: Wood et al., JMLR 2023 (ambiguity); Krogh and Vedelsby, NeurIPS 1994 (variance).
"""

import torch
from torch import Tensor

from pluria.score.members import MemberSums
from pluria.score.rows import IGNORED, check_targets
from pluria.score.tally import Rows, Score


def member_nll(members: MemberSums, y: Tensor) -> Tensor:
    """Weighted mean of the members' own NLL, a."""
    return -_at(members.mean_log_probs, y)


def geometric_nll(members: MemberSums, y: Tensor) -> Tensor:
    """NLL of the mean of logits, c."""
    return -_at(members.mean_log_probs.log_softmax(-1), y)


def ambiguity(members: MemberSums) -> Tensor:
    """a - c without looking at targets; infinite where the members exclude each other's classes.

    >>> from pluria.score.members import member_sums
    >>> ambiguity(member_sums(torch.tensor([[[0.8, 0.2]], [[0.2, 0.8]]], dtype=torch.float64).log()))
    tensor([0.2231], dtype=torch.float64)
    """
    return -members.mean_log_probs.logsumexp(-1)


def mutual_information(members: MemberSums) -> Tensor:
    """Information that the target has about which member is right; at most log K."""
    terms: Tensor = torch.special.entr(members.mean_probs)
    return (terms.sum(-1) - members.mean_entropy).clamp(min=0.0)


def variance(members: MemberSums) -> Tensor:
    """Weighted variance of the members' probabilities, summed over classes."""
    return (members.mean_square - members.mean_probs.square().sum(-1)).clamp(min=0.0)


def disagreement(members: MemberSums) -> Tensor:
    """Weighted share of pairs of different members that vote for different classes; 0 for a single member."""
    differ = 1 - members.vote_shares.square().sum(-1)
    pairs = 1 - members.same_member
    return torch.where(pairs > 1e-12, differ / pairs, 0.0).clamp(min=0.0)


def member_error(members: MemberSums, y: Tensor) -> Tensor:
    """Weight of the members whose most probable class is not the target."""
    return (1 - _at(members.vote_shares, y)).clamp(min=0.0)


def member_brier(members: MemberSums, y: Tensor) -> Tensor:
    """Weighted mean of the members' own Brier scores."""
    return members.mean_square - 2 * _at(members.mean_probs, y) + 1


def _at(values: Tensor, y: Tensor) -> Tensor:
    if values.shape[:1] != y.shape:
        raise ValueError(f"the members have {len(values)} rows, y is {list(y.shape)}")
    check_targets(y, values.shape[1])
    if bool((y.long() == IGNORED).any()):  # in uint8, -100 would be class 156
        raise ValueError("drop ignored targets and their rows first, with flatten")
    return values.gather(-1, y.long()[:, None])[:, 0]


def _member_nll(rows: Rows) -> dict[str, Tensor]:
    return {"sum": member_nll(rows.members, rows.targets)}


def _geometric_nll(rows: Rows) -> dict[str, Tensor]:
    return {"sum": geometric_nll(rows.members, rows.targets)}


def _ambiguity(rows: Rows) -> dict[str, Tensor]:
    return {"sum": ambiguity(rows.members)}


def _mutual_information(rows: Rows) -> dict[str, Tensor]:
    return {"sum": mutual_information(rows.members)}


def _variance(rows: Rows) -> dict[str, Tensor]:
    return {"sum": variance(rows.members)}


def _disagreement(rows: Rows) -> dict[str, Tensor]:
    return {"sum": disagreement(rows.members)}


def _member_error(rows: Rows) -> dict[str, Tensor]:
    return {"sum": member_error(rows.members, rows.targets)}


def _member_brier(rows: Rows) -> dict[str, Tensor]:
    return {"sum": member_brier(rows.members, rows.targets)}


MEMBER_NLL = Score("member_nll", _member_nll)
GEOMETRIC_NLL = Score("geometric_nll", _geometric_nll)
AMBIGUITY = Score("ambiguity", _ambiguity, better="none")
MUTUAL_INFORMATION = Score("mutual_information", _mutual_information, better="none")
VARIANCE = Score("variance", _variance, better="none")
DISAGREEMENT = Score("disagreement", _disagreement, better="none")
MEMBER_ERROR = Score("member_error", _member_error)
MEMBER_BRIER = Score("member_brier", _member_brier)
