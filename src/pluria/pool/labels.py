"""Temperatures for several labels of one example: each label's logit is divided by T, or by one T for each label.

    p = sigmoid( z / T )        T of least mean NLL over labels, or label by label

A label is a choice between two, so this is the temperature of two classes with the logits 0 and z. Where members
are surer of some labels than of others, one T for all is a compromise; one for each needs rows for each.
Source: Guo, Pleiss, Sun and Weinberger, ICML 2017, for two classes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from pluria.pool.rows import check_classes
from pluria.pool.temperature import Temperature, fit_temperature


@dataclass(frozen=True)
class LabelTemperatures:
    """Fitted temperatures: calls map pooled logits `[..., L]` to logits divided by them, of that shape and dtype.

    `values` has one number for all labels, or one for each; `clamped` says which optimum lies beyond the bounds. Plain
    data, through JSON as well.

    >>> LabelTemperatures((2.0, 4.0), (False, False))(torch.tensor([[4.0, 4.0]]))
    tensor([[2., 1.]])
    """

    values: tuple[float, ...]
    clamped: tuple[bool, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(self.values))
        object.__setattr__(self, "clamped", tuple(self.clamped))
        if not self.values or len(self.clamped) != len(self.values):
            raise ValueError(f"a temperature or more, and whether each is clamped, is wanted; got {self}")
        for value in self.values:
            Temperature(value)

    def __call__(self, logits: Tensor) -> Tensor:
        """Scaled logits."""
        if len(self.values) > 1:
            check_classes(logits, len(self.values))
        return (logits.to(torch.float64) / logits.new_tensor(self.values, dtype=torch.float64)).to(logits.dtype)


def fit_label_temperatures(
    logits: Tensor, y: Tensor, *, each: bool = False, ignore_index: int = -100
) -> LabelTemperatures:
    """The temperatures of least mean NLL of pooled `logits` `[N, ..., L]` at labels y of the same shape.

    `each` fits one for every label. Labels are 0 and 1 of an integer type, or bool; `ignore_index` is a label that
    nobody gave. Fit it on rows that give no figure afterwards. Refused with `ValueError`: shapes that differ, other
    labels, logits that are NaN, a label (with `each`) that no row has, and a sure answer, an infinite logit, that is
    wrong.
    """
    if logits.shape != y.shape or logits.ndim == 0:
        raise ValueError(f"labels must have the shape of the logits {list(logits.shape)}, not {list(y.shape)}")
    whole = y.long() if y.dtype == torch.bool else y
    pairs = torch.stack([torch.zeros_like(logits), logits], dim=-1)
    # An infinite logit is a certain answer, and rows with +inf are refused: the other label is held impossible instead.
    sure = logits == torch.inf
    pairs[..., 0].masked_fill_(sure, -torch.inf)
    pairs[..., 1].masked_fill_(sure, 0.0)
    parts = [(pairs[..., i, :], whole[..., i]) for i in range(logits.shape[-1])] if each else [(pairs, whole)]
    fitted = [fit_temperature(rows, labels, ignore_index=ignore_index) for rows, labels in parts]
    return LabelTemperatures(tuple(one.value for one in fitted), tuple(one.clamped for one in fitted))
