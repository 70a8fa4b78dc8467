"""Philox4x32-10, the counter-based generator, in torch integers (and, on a CPU, by the compiled loop of `kernel.py`).

    ten rounds of   c0', c1', c2', c3' = hi(M1 c2) ^ c1 ^ k0,  lo(M1 c2),  hi(M0 c0) ^ c3 ^ k1,  lo(M0 c0)
    with the key raised by the Weyl constants W0, W1 after each round; all words are 32 bits

Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
Known answer: key 0, counter 0 gives 6627e8d5 e169c58d bc57ac4c 9b00dbd8.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pluria.numbers import kernel
from pluria.numbers.key import ELEMENTS, Key

M0, M1 = 0xD2511F53, 0xCD9E8D57
W0, W1 = 0x9E3779B9, 0xBB67AE85
MASK = 0xFFFFFFFF
UNIT = 2.0**-24


def philox4x32(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Four random words for each counter; words are int64 tensors with values in 0..2^32-1, broadcast together."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        # int64 products wrap, which keeps all 64 bits; the shift is arithmetic, hence the mask.
        p0, p1 = c0 * M0, c2 * M1
        c0, c1, c2, c3 = ((p1 >> 32) & MASK) ^ c1 ^ k0, p1 & MASK, ((p0 >> 32) & MASK) ^ c3 ^ k1, p0 & MASK
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1, c2, c3


def words(
    key: Key,
    *,
    tensor: int,
    group: int | Tensor,
    stream: int,
    start: int,
    stop: int,
    device: torch.device | None = None,
) -> Tensor:
    """Random words of elements start..stop-1, int64 `[stop - start]` with values in 0..2^32-1."""
    if not 0 <= start <= stop <= ELEMENTS:
        raise ValueError(f"elements lie in 0..2^34 of a tensor; got {start}..{stop}")
    if isinstance(group, int) and 0 <= group <= MASK and kernel.available(device):
        return kernel.words(key.words, tensor, group, stream, start, stop)
    quads = torch.arange(start // 4, (stop + 3) // 4, device=device)
    constant = [torch.as_tensor(value, dtype=torch.int64, device=device) for value in (tensor, group, stream)]
    four = philox4x32((quads, *constant), key.words)  # type: ignore[arg-type]
    return torch.stack(four, dim=-1).flatten()[start % 4 :][: stop - start]


def uniforms(word: Tensor) -> Tensor:
    """24-bit uniforms in [0, 1), float32, exact: (word >> 8) 2^-24."""
    return (word >> 8).to(torch.float32) * UNIT


def normals(
    key: Key, *, tensor: int, group: int, stream: int, start: int, stop: int, device: torch.device | None = None
) -> Tensor:
    """Standard normals of elements start..stop-1 by Box and Muller, float32 `[stop - start]`.

    Elements 2j and 2j + 1 share the words 2j and 2j + 1. Devices agree within float32 rounding, not bit for bit.
    """
    first, last = start // 2 * 2, (stop + 1) // 2 * 2
    pair = words(key, tensor=tensor, group=group, stream=stream, start=first, stop=last, device=device).view(-1, 2)
    u = ((pair >> 8).to(torch.float64) + 0.5) * UNIT
    radius, angle = torch.sqrt(-2.0 * torch.log(u[:, 0])), 2.0 * torch.pi * u[:, 1]
    both = torch.stack([radius * torch.cos(angle), radius * torch.sin(angle)], dim=-1)
    return both.flatten()[start - first :][: stop - start].to(torch.float32)
