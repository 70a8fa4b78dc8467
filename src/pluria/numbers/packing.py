"""Codes of b bits packed into bytes: bit j of code i is bit (i b + j) of the stream, least significant first."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 2**20
"""Codes packed at a time; a multiple of eight, so that chunks end on whole bytes."""


def pack(codes: Tensor, bits: int) -> Tensor:
    """uint8 `[ceil(n bits / 8)]` of codes `[n]` in 0..2^bits-1, 1 <= bits <= 16.

    >>> pack(torch.tensor([1, 2, 3]), 2)
    tensor([57], dtype=torch.uint8)
    """
    if codes.numel() and (int(codes.min()) < 0 or int(codes.max()) >= 2**bits):
        raise ValueError(f"codes of {bits} bits lie in 0..{2**bits - 1}; got {int(codes.min())}..{int(codes.max())}")
    parts = [_pack(codes[start : start + CHUNK], bits) for start in range(0, codes.numel(), CHUNK)]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.uint8)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """int64 codes `[count]`: the inverse of `pack`."""
    if packed.numel() != (count * bits + 7) // 8:
        raise ValueError(f"{count} codes of {bits} bits take {(count * bits + 7) // 8} bytes; got {packed.numel()}")
    out = torch.empty(count, dtype=torch.int64, device=packed.device)
    for start in range(0, count, CHUNK):
        stop = min(start + CHUNK, count)
        part = packed[start * bits // 8 : (stop * bits + 7) // 8]
        stream = (part.unsqueeze(1) >> _shifts(8, part.device)) & 1
        rows = stream.flatten()[: (stop - start) * bits].view(-1, bits).to(torch.int64)
        out[start:stop] = (rows << _shifts(bits, part.device)).sum(dim=1)
    return out


def _pack(codes: Tensor, bits: int) -> Tensor:
    stream = ((codes.to(torch.int64).unsqueeze(1) >> _shifts(bits, codes.device)) & 1).flatten()
    stream = torch.nn.functional.pad(stream, (0, -stream.numel() % 8)).view(-1, 8)
    return (stream << _shifts(8, codes.device)).sum(dim=1).to(torch.uint8)


def _shifts(count: int, device: torch.device) -> Tensor:
    return torch.arange(count, device=device)
