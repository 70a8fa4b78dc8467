"""A temperature for each member, before the pool: log_softmax(log p_k / T_k), each fitted on its member alone.

Members of different kinds may be sure in different degrees, and then those that are too sure rule the mean. The pool of
members that are each right about their sureness is too cautious, since they disagree: a temperature on the pooled
answer has to follow. Members that are cut from one network are equally sure; the pooled temperature does all of it.
Source: Rahaman and Thiery, NeurIPS 2021; Wu and Gales, "Should ensemble members be calibrated?", arXiv 2101.05397.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.pool.rows import check_members
from pluria.pool.temperature import Temperature, fit_temperature


@dataclass(frozen=True)
class MemberTemperatures:
    """Fitted temperatures: calls map members' `[K, N, ..., C]` to scaled log-probabilities of the same shape and dtype.

    What they give goes into a pool. `clamped` says of which members the optimum lies beyond the bounds. Plain data,
    through JSON as well.

    >>> MemberTemperatures((1.0, 2.0), (False, False))(torch.tensor([[[0.0, 2.0]], [[0.0, 2.0]]])).exp()
    tensor([[[0.1192, 0.8808]],
    <BLANKLINE>
            [[0.2689, 0.7311]]])
    """

    values: tuple[float, ...]
    clamped: tuple[bool, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "clamped", tuple(self.clamped))
        if not self.values or len(self.clamped) != len(self.values):
            raise ValueError(f"a temperature, and whether it is clamped, is wanted for each member; got {self}")
        for value in self.values:
            Temperature(value)

    def __call__(self, log_probs: Tensor) -> Tensor:
        """Scaled and normalised log-probabilities, in the shape and dtype of `log_probs` `[K, N, ..., C]`."""
        check_members(log_probs, len(self.values))
        return torch.stack([Temperature(t)(rows) for t, rows in zip(self.values, log_probs, strict=True)])


def fit_member_temperatures(log_probs: Tensor, y: Tensor, *, ignore_index: int = -100) -> MemberTemperatures:
    """The temperature of least mean NLL of each member's `log_probs` `[K, N, ..., C]` (or logits) at `y` `[N, ...]`.

    Fit it on rows that no member was trained on and that give no figure afterwards. Refused, for any member: what
    `fit_temperature` refuses; and outputs without a member axis.
    """
    if log_probs.ndim < 3 or len(log_probs) == 0:
        raise ValueError(f"log-probabilities must be [K, N, ..., C] with a member, not {list(log_probs.shape)}")
    fitted = [fit_temperature(rows, y, ignore_index=ignore_index) for rows in log_probs]
    return MemberTemperatures(tuple(one.value for one in fitted), tuple(one.clamped for one in fitted))
