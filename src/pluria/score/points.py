"""Which points are scored together: draws of tau points, with replacement from a few anchors or all different.

    a draw of tau = 10 from 2 anchors     examples [i, j], times [k, 10 - k],  k binomial
    a draw of tau = 10 different ones     examples [i_1 .. i_10], times all 1

Source: Osband et al., UAI 2022 (dyadic draws: few anchors show how members hang together in many dimensions too).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Points:
    """R draws of tau points: the different `examples` `[R, A]` of each draw and how many `times` `[R, A]` each counts.

    `ValueError` for other shapes and types, no draw, negative numbers, an example twice in a draw (count it in `times`
    instead), and draws that differ in tau.

    >>> Points(torch.tensor([[4, 7]]), torch.tensor([[3, 1]])).tau
    4
    """

    examples: Tensor
    times: Tensor

    def __post_init__(self) -> None:
        if self.examples.ndim != 2 or self.examples.shape != self.times.shape or self.examples.numel() == 0:
            shapes = f"{list(self.examples.shape)} and {list(self.times.shape)}"
            raise ValueError(f"examples and times must both be [R, A] and not empty, not {shapes}")
        if self.examples.dtype != torch.int64 or self.times.dtype != torch.int64:
            raise ValueError(f"examples and times must be int64, not {self.examples.dtype} and {self.times.dtype}")
        if int(self.examples.min()) < 0 or int(self.times.min()) < 0:
            raise ValueError("examples and times must not be negative")
        totals = self.times.sum(1)
        if int(totals.min()) < 1 or int(totals.min()) != int(totals.max()):
            found = f"{int(totals.min())} and {int(totals.max())}"
            raise ValueError(f"every draw needs the same number of points, at least 1; there are draws of {found}")
        if bool((self.examples.sort(1).values.diff(dim=1) == 0).any()):
            raise ValueError("an example stands twice in one draw; count it in times instead")

    @property
    def tau(self) -> int:
        """Number of points, and so of labels, in each draw."""
        return int(self.times[0].sum())


def draw_points(
    examples: int, *, tau: int = 10, anchors: int | None = 2, draws: int | None = None, seed: int = 0
) -> Points:
    """R draws of `tau` points among `examples` rows: with replacement from `anchors` of them, or all different (None).

    The rows are shuffled and dealt out, N // anchors (or N // tau) draws at a time, so that draws of one deal share no
    row and are independent. `draws=None` asks for one deal: bootstrap those. More draws shuffle and deal again. Their
    mean is steadier, but they share rows, so a bootstrap over them gives intervals that are too narrow.
    The first draws do not change as `draws` grows. `ValueError` for tau, anchors or draws below 1, and for fewer rows
    than one draw takes.

    >>> draw_points(5000).examples.shape, draw_points(5000, anchors=None).examples.shape
    (torch.Size([2500, 2]), torch.Size([500, 10]))
    """
    width = tau if anchors is None else anchors
    if min(tau, width, 1 if draws is None else draws) < 1:
        raise ValueError(f"tau, anchors and draws must be at least 1, not {tau}, {anchors} and {draws}")
    if width > examples:
        raise ValueError(f"a draw takes {width} different examples, but there are {examples}")
    in_one_deal = examples // width
    wanted = in_one_deal if draws is None else draws
    generator = torch.Generator().manual_seed(seed)
    deals = [_deal(examples, tau, anchors, generator) for _ in range(math.ceil(wanted / in_one_deal))]
    dealt, times = (torch.cat(parts)[:wanted] for parts in zip(*deals, strict=True))
    return Points(dealt, times)


def _deal(examples: int, tau: int, anchors: int | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """One deal: different examples `[R, A]` and their counts, of which each row sums to tau."""
    width = tau if anchors is None else anchors
    dealt = torch.randperm(examples, generator=generator)[: examples // width * width].view(-1, width)
    if anchors is None:
        return dealt, torch.ones_like(dealt)
    which = torch.randint(anchors, (len(dealt), tau), generator=generator)
    return dealt, torch.zeros_like(dealt).scatter_add_(1, which, torch.ones_like(which))
