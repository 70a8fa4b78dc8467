"""Networks of many kinds whose groups are known, and random places for their groups."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pluria.align import Groups
from pluria.zoo import network


def images(count: int = 16, *, channels: int = 1, size: int = 8) -> Tensor:
    """Random images."""
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(3))


class Dense(nn.Module):
    """Channels end to end, a grouped convolution, a group norm, and a part of the channels cut out again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 6, 3, padding=1, groups=2)
        self.norm = nn.GroupNorm(2, 6)
        self.third = nn.Conv2d(4, 5, 1)
        self.head = nn.Linear(6 + 5, 3)

    def forward(self, x: Tensor) -> Tensor:
        one = torch.relu(self.first(x))
        both = torch.cat([one, self.norm(self.second(one)).relu()], dim=1)
        left, right = both.split([4, 6], dim=1)
        answer: Tensor = self.head(torch.cat([right, self.third(left)], dim=1).mean((-2, -1)))
        return answer


class Sorted(nn.Module):
    """A network in which the order of hidden places counts: the second layer is fed sums that run along them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 7), nn.Linear(7, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.second(self.first(x.flatten(1)).cumsum(-1)).relu())
        return answer


def attention() -> nn.Module:
    """PyTorch's own transformer layer, whose fused path would hide what happens."""
    layer = nn.TransformerEncoderLayer(12, 3, dim_feedforward=10, batch_first=True, dropout=0.0)
    return nn.Sequential(nn.Flatten(2), nn.Linear(64, 12), layer, nn.Flatten(), nn.Linear(12, 3))


KINDS: dict[str, tuple[Callable[[], nn.Module], Tensor, int]] = {
    "mlp": (lambda: network("mlp", inputs=64, classes=3), images(), 2),
    "vgg": (lambda: network("small_cnn"), images(), 3),
    "resnet": (lambda: network("cifar_resnet", depth=14), images(channels=3, size=16), 11),
    "vit": (lambda: network("small_vit", depth=2), images(), 7),
    "torch_attention": (attention, images(), 4),
    "dense": (Dense, images(), 4),
    "sorted": (Sorted, images(), 1),
}
"""How each kind is made, a batch for it, and how many groups it has."""


def made(kind: str, seed: int = 0) -> nn.Module:
    """A network whose norms are no identity, so that permuting them shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = KINDS[kind][0]()
        for name, value in model.named_parameters():
            torch.nn.init.normal_(value, 1.0 if value.ndim == 1 and name.endswith("weight") else 0.0, 0.3)
        for _, value in model.named_buffers():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.5)
    return model.eval()


def shuffled(groups: Groups, seed: int = 1) -> dict[str, Tensor]:
    """Random places for every group."""
    draw = torch.Generator().manual_seed(seed)
    found = {}
    for group, size in groups.sizes.items():
        heads = groups.sizes[groups.within[group]] if group in groups.within else 0
        rows = [torch.randperm(size, generator=draw) for _ in range(heads or 1)]
        found[group] = torch.stack(rows) if heads else rows[0]
    return found


def answers(model: nn.Module, params: dict[str, Tensor], x: Tensor) -> Tensor:
    """Outputs of a model with other tensors."""
    with torch.no_grad():
        found: Tensor = torch.func.functional_call(model, params, (x,))
    return found
