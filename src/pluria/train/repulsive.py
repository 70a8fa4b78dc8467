"""Repulsive ensembles: particles climb the posterior and keep apart, by a kernel on weights or on outputs.

    k_ij = exp(-|x_i - x_j|^2 / (2 h)),  h = median |x_i - x_j|^2 / (2 log(n + 1))
    SVGD   phi_i = (1/n) sum_j (k_ij s_j + grad_j k_ij)                    s = grad log p
    KDE    phi_i = s_i - sum_j grad_i k_ij / sum_j k_ij                    (Wasserstein flow, kernel density)
    SGE    phi = s - (K + eta I)^-1 ( -sum_j grad_j k_ij )                 (Stein gradient estimate of log q)

In high dimensions kernels on weights vanish; use them on outputs, and pull the result back through the network.

Source: D'Angelo and Fortuin, "Repulsive Deep Ensembles are Bayesian", NeurIPS 2021.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Flow = Literal["svgd", "kde", "sge"]
RIDGE = 0.01


def repulsive(points: Tensor, scores: Tensor, *, flow: Flow = "kde", ridge: float = RIDGE) -> Tensor:
    """Directions `[n, D]` in which particles `[n, D]` with gradients of the log density `[n, D]` move.

    To descend a loss, give its negative gradients times N. Raises ValueError for fewer than two particles.
    """
    if len(points) < 2:
        raise ValueError("repulsion needs two particles or more")
    kernel, gradient = _kernel(points)
    # gradient[i, j] is of k_ij by its first argument; by its second it is the negative.
    if flow == "svgd":
        return (kernel @ scores - gradient.sum(1)) / len(points)
    if flow == "kde":
        return scores - gradient.sum(1) / kernel.sum(1, keepdim=True)
    if flow == "sge":
        eye = torch.eye(len(points), dtype=points.dtype, device=points.device)
        log_q: Tensor = torch.linalg.solve(kernel + ridge * eye, gradient.sum(1))
        return scores - log_q
    raise ValueError(f"a flow is 'svgd', 'kde' or 'sge'; got {flow!r}")


def repel(outputs: Tensor, scores: Tensor, *, flow: Flow = "kde") -> Tensor:
    """A loss whose gradient by outputs `[K, N, C]` is minus the direction in function space; `backward` pulls it back.

    `scores` are the gradients of the log posterior by the outputs, `[K, N, C]`.
    """
    flat, own = outputs.detach().flatten(1), scores.detach().flatten(1)
    directions = repulsive(flat, own, flow=flow).view(outputs.shape)
    return -(directions * outputs).sum()


def _kernel(points: Tensor) -> tuple[Tensor, Tensor]:
    """k `[n, n]`, and its gradient by the first argument `[n, n, D]`, at the median's width."""
    apart = points[:, None] - points[None]
    squared = apart.square().sum(-1)
    off = squared[~torch.eye(len(points), dtype=torch.bool, device=points.device)]
    # Particles that stand on one point have no median distance; any width gives them no push.
    width = off.median().clamp(min=torch.finfo(points.dtype).tiny) / (2 * math.log(len(points) + 1))
    kernel = torch.exp(-squared / (2 * width))
    return kernel, -apart / width * kernel[..., None]
