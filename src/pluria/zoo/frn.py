"""Filter response normalisation and its thresholded linear unit: normalisation without batch statistics.

    nu2 = mean of x^2 over H, W       y = weight * x / sqrt(nu2 + eps) + bias       z = max(y, tau)

`x` is `[N, C, H, W]`; weight, bias and tau are `[C]`, one number per channel. An example is normalised by itself alone,
so there are no running statistics to refresh when parameters change.
Source: Singh and Krishnan 2020, Filter Response Normalization Layer, arXiv:1911.09737.
"""

import torch
from torch import Tensor, nn


class FilterResponseNorm(nn.Module):
    """Normalise every channel of every example `[N, C, H, W]` by its root mean square over H and W."""

    def __init__(self, channels: int, *, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        nu2 = x.square().mean(dim=(-2, -1), keepdim=True)
        scale = torch.rsqrt(nu2 + self.eps) * self.weight[:, None, None]
        # Under autocast the activations stay in its dtype, as those of batch norm do.
        return x * scale.to(x.dtype) + self.bias[:, None, None].to(x.dtype)


class ThresholdedLinear(nn.Module):
    """max(x, tau) with one learned threshold per channel; a ReLU at its start, tau = 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tau = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        tau = self.tau[:, None, None].to(x.dtype)
        return torch.relu(x - tau) + tau  # torch.maximum is slow backward: as much as all convolutions of a network
