"""A small vision transformer: patches, learned positions, pre-norm blocks of torch's own attention, mean over patches.

    x = x + attention(norm1(x))       x = x + mlp(norm2(x))       T = (size / patch)^2 tokens

Source: Dosovitskiy et al. 2021, An Image is Worth 16x16 Words, arXiv:2010.11929.
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn


def small_vit(
    *,
    size: int = 8,
    channels: int = 1,
    patch: int = 2,
    classes: int = 10,
    dim: int = 64,
    depth: int = 4,
    heads: int = 4,
    dropout: float = 0.0,
) -> "SmallViT":
    """A network `[N, channels, size, size]` -> logits `[N, classes]`; `patch` divides `size`, `heads` divides `dim`."""
    if size % patch or dim % heads:
        raise ValueError(f"patch must divide size and heads must divide dim, not {patch}, {size} and {heads}, {dim}")
    tokens = (size // patch) ** 2
    return SmallViT(
        embed=nn.Conv2d(channels, dim, patch, stride=patch),
        # As large as torch's embeddings: smaller ones drown in the patches, and little data then learn no positions.
        positions=torch.randn(tokens, 1, dim),
        blocks=nn.Sequential(*(_Block(dim, heads, dropout) for _ in range(depth))),
        head=nn.Linear(dim, classes),
    )


class SmallViT(nn.Module):
    """Patches `[N, T, dim]` through the blocks, normalised, averaged over the patches and classified."""

    def __init__(self, *, embed: nn.Conv2d, positions: Tensor, blocks: nn.Sequential, head: nn.Linear) -> None:
        super().__init__()
        self.embed = embed
        self.positions = nn.Parameter(positions)
        self.blocks = blocks
        self.norm = nn.LayerNorm(head.in_features)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2) + self.positions.transpose(0, 1)
        logits: Tensor = self.head(self.norm(self.blocks(tokens)).mean(dim=1))
        return logits


class _Block(nn.Module):
    """Attention and a two-layer perceptron on `[N, T, dim]`, each behind a layer norm and beside a shortcut.

    Examples come first, so that a mask of dropout made for one example serves them all.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        # vmap cannot batch torch's fused kernels. With tokens on attention's first axis its fused inference path is
        # off, and asking for the attention's weights turns off the fused product.
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=False)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            OrderedDict(linear1=nn.Linear(dim, 2 * dim), gelu=nn.GELU(), linear2=nn.Linear(2 * dim, dim))
        )
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x).transpose(0, 1)
        x = x + self.dropout(self.attention(normed, normed, normed, need_weights=True)[0].transpose(0, 1))
        result: Tensor = x + self.dropout(self.mlp(self.norm2(x)))
        return result
