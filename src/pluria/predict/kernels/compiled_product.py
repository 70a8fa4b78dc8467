"""Products of K members on a CPU, from floor codes and bits: loops compiled by Numba, and the way to call them.

    y[k, o] = sum_g s[o, g] sum_d x[k, d] (floor[o, d] + bit_k[o, d] - zero[o, g])        two bytes for eight members

Few rows are bound by the memory that weights are read from, and are multiplied as the codes are read. Of many rows each
member's integers are written out, and multiplied as any network's weights are. Sums are float32, in no given order.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pluria.numbers.compiled_by import compiled, summing
from pluria.numbers.threads import share
from pluria.predict.kernels.operands import BYTE, Planes

FEW = 12
"""Rows of a member up to which codes are multiplied as they are read."""

Codes = NDArray[np.uint8]
Array = NDArray[np.float32]
ONE, ZERO = np.float32(1.0), np.float32(0.0)


@summing
def multiply(y: Array, x: Array, floor: Codes, bits: Codes, scale: Array, zero: Array, start: int, stop: int) -> None:
    """Outputs start..stop-1 of `y` `[8, O]` for one row of eight members, `x` `[8, D]`."""
    size = floor.shape[1] // scale.shape[1]
    x0, x1, x2, x3, x4, x5, x6, x7 = x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]
    for o in range(start, stop):
        codes, own = floor[o], bits[o]
        for k in range(8):
            y[k, o] = ZERO
        for g in range(scale.shape[1]):
            a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = ZERO
            z, s = zero[o, g], scale[o, g]
            for d in range(np.uint64(g * size), np.uint64((g + 1) * size)):  # not negative, which would cost a branch
                low, bit = np.float32(codes[d]) - z, np.int32(own[d])
                high = low + ONE
                a0 += x0[d] * (high if bit & 1 else low)
                a1 += x1[d] * (high if bit & 2 else low)
                a2 += x2[d] * (high if bit & 4 else low)
                a3 += x3[d] * (high if bit & 8 else low)
                a4 += x4[d] * (high if bit & 16 else low)
                a5 += x5[d] * (high if bit & 32 else low)
                a6 += x6[d] * (high if bit & 64 else low)
                a7 += x7[d] * (high if bit & 128 else low)
            y[0, o] += a0 * s
            y[1, o] += a1 * s
            y[2, o] += a2 * s
            y[3, o] += a3 * s
            y[4, o] += a4 * s
            y[5, o] += a5 * s
            y[6, o] += a6 * s
            y[7, o] += a7 * s


@compiled
def write(out: Array, floor: Codes, bits: Codes, place: int, scale: Array, zero: Array, start: int, stop: int) -> None:
    """Rows start..stop-1 of a member's weights `[O, D]`; its bits are those of one place in a byte."""
    size, at = floor.shape[1] // scale.shape[1], np.uint8(place)
    for o in range(start, stop):
        codes, own, row = floor[o], bits[o], out[o]
        for g in range(scale.shape[1]):
            z, s = zero[o, g], scale[o, g]
            for d in range(np.uint64(g * size), np.uint64((g + 1) * size)):
                row[d] = (np.float32(codes[d]) + np.float32((own[d] >> at) & 1) - z) * s


def product(operand: Planes, x: Tensor) -> Tensor:
    """`[K, N, O]` float32 of x `[N, D]` or `[K, N, D]`."""
    rows = x.expand(operand.count, *x.shape[-2:])
    return _few(operand, rows.to(torch.float32)) if rows.shape[1] <= FEW else _many(operand, rows)


def _few(operand: Planes, rows: Tensor) -> Tensor:
    count, number, (outputs, inputs) = operand.count, rows.shape[1], operand.floor.shape
    made = torch.empty(len(operand.planes) * BYTE, number, outputs)
    for plane, bits in enumerate(operand.planes):
        own = slice(plane * BYTE, (plane + 1) * BYTE)
        for n in range(number):
            given, y = torch.zeros(BYTE, inputs), torch.empty(BYTE, outputs)
            given[: len(rows[own])] = rows[own, n]
            held = y, given, operand.floor, bits, operand.scale, operand.zero
            share(partial(_outputs, multiply, tuple(map(Tensor.numpy, held)), inputs), outputs * inputs, inputs)
            made[own, n] = y
    return made[:count]


def _many(operand: Planes, rows: Tensor) -> Tensor:
    """In the dtype of x where the scale can wait: integers are exact in 16 bits."""
    outputs, inputs = operand.floor.shape
    waits = operand.scale.shape[1] == 1
    weight, scale = torch.empty(outputs, inputs), torch.ones_like(operand.scale) if waits else operand.scale
    made, kind = [], rows.dtype if waits else torch.float32
    for k in range(operand.count):
        held = weight, operand.floor, operand.planes[k // BYTE], scale, operand.zero
        out, floor, bits, s, z = map(Tensor.numpy, held)
        share(partial(_outputs, write, (out, floor, bits, k % BYTE, s, z), inputs), weight.numel(), inputs)
        y = F.linear(rows[k].to(kind), weight.to(kind)).to(torch.float32)
        made.append(y * operand.scale[:, 0] if waits else y)
    return torch.stack(made)


def _outputs(loop: Any, held: tuple[Any, ...], inputs: int, start: int, stop: int) -> None:
    """A loop over outputs, for a piece that is counted in weights."""
    loop(*held, start // inputs, stop // inputs)
