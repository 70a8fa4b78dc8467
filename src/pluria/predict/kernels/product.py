"""K members' products of one linear layer: `[K, N, O]` of inputs `[N, D]` that all share, or `[K, N, D]` of their own.

Tensors on a GPU take one Triton kernel (`tiled.py`), stored planes on a CPU a compiled loop (`compiled_product.py`),
others plain torch: the reference, in float32.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from pluria.numbers import gpu, kernel
from pluria.numbers.key import ROUNDING
from pluria.predict.kernels.operands import BYTE, Operand, Planes


@dataclass(frozen=True)
class Tiles:
    """Examples, outputs and inputs of one tile (powers of two, inputs 16 or more), and how it is launched.

    The defaults were chosen because ptxas assembles both forms for compute capability 9.0 without spilling registers,
    not by time; `benchmarks.gpu_linear` times these and others.
    """

    rows: int = 16
    outputs: int = 32
    inputs: int = 64
    warps: int = 8
    stages: int = 2


def product(operand: Operand, x: Tensor, bias: Tensor | None = None, *, tiles: Tiles | None = None) -> Tensor:
    """`[K, N, O]` in the dtype of x, from x `[N, D]` or `[K, N, D]`; `bias` is `[O]` or `[K, O]`.

    Integers times inputs are summed in float32, and the scale is applied to the sum; one rounding at the end. Raises
    ValueError where shapes do not fit.
    """
    outputs, inputs = _shape(operand)
    if x.device != operand.scale.device:
        raise ValueError(f"the members lie on {operand.scale.device}, the inputs on {x.device}; move one of them")
    if x.ndim not in (2, 3) or x.shape[-1] != inputs or (x.ndim == 3 and len(x) != operand.count):
        own = f"[{operand.count}, N, {inputs}], one for each member"
        raise ValueError(f"inputs are [N, {inputs}], shared, or {own}; got {tuple(x.shape)}")
    if bias is not None and tuple(bias.shape) not in ((outputs,), (operand.count, outputs)):
        raise ValueError(f"a bias is [{outputs}] or [{operand.count}, {outputs}]; got {tuple(bias.shape)}")
    if serves(operand, x, bias):
        return launch(operand, x.contiguous(), bias, tiles or Tiles())
    if isinstance(operand, Planes) and x.numel() and kernel.available(x.device):
        from pluria.predict.kernels import compiled_product  # imports Numba

        return _shifted(compiled_product.product(operand, x), bias, x.dtype)
    return reference(operand, x, bias)


def serves(operand: Operand, x: Tensor, bias: Tensor | None) -> bool:
    """Whether the Triton kernel can make this product."""
    held = [operand.scale, x] if bias is None else [operand.scale, x, bias]
    return (
        all(tensor.dtype in gpu.READS and tensor.device == x.device for tensor in held)
        and gpu.available(x.device)
        and code() is not None
    )


def fast(device: torch.device) -> bool:
    """Whether stored planes on a device are multiplied as they are read."""
    return kernel.available(device) or (gpu.available(device) and code() is not None)


def reference(operand: Operand, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """The product in plain torch, one member after the other, in float32."""
    groups, inputs, made = operand.scale.shape[1], _shape(operand)[1], []
    for position in range(operand.count):
        rows = (x if x.ndim == 2 else x[position]).to(torch.float32)
        integers = operand.integers(position)
        parts, rows = (matrix.reshape(len(matrix), groups, inputs // groups) for matrix in (integers, rows))
        sums = torch.einsum("ngd,ogd->nog", rows, parts)
        made.append((sums * operand.scale).sum(-1))
    return _shifted(torch.stack(made), bias, x.dtype)


def _shifted(total: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    """The product with its bias, rounded once."""
    if bias is not None:
        total = total + (bias if bias.ndim == 1 else bias.unsqueeze(1)).to(torch.float32)
    return total.to(dtype)


def launch(operand: Operand, x: Tensor, bias: Tensor | None, tiles: Tiles) -> Tensor:
    """The product by the Triton kernel; ask `serves` first."""
    if (tiled := code()) is None:
        raise ValueError("the kernel serves no product, because Triton cannot be imported; ask `serves` first")
    (outputs, inputs), count, rows = _shape(operand), operand.count, x.shape[-2]
    y = torch.empty((count, rows, outputs), dtype=x.dtype, device=x.device)
    members = min(BYTE, 1 << (count - 1).bit_length())
    grid = (-(-rows // tiles.rows), -(-outputs // tiles.outputs), -(-count // members))
    groups, shift = operand.scale.shape[1], x if bias is None else bias.contiguous()
    if y.numel():
        with gpu.on(x.device):
            tiled.multiply[grid](
                gpu.pattern(y), gpu.pattern(x), gpu.pattern(shift), **_sources(operand), stream=ROUNDING,
                members=count, rows=rows, outputs=outputs, inputs=inputs, size=inputs // groups, groups=groups,
                x_member=rows * inputs, bias_member=outputs if shift.ndim == 2 else 0,
                SHARED=x.ndim == 2, BIAS=bias is not None, READ_X=gpu.patterned(x), READ_BIAS=gpu.patterned(shift),
                DOT=_dot(x, tiled), M=members, ROWS=tiles.rows, OUTS=tiles.outputs, INS=tiles.inputs,
                num_warps=tiles.warps, num_stages=tiles.stages, enable_fp_fusion=False,
            )  # fmt: skip
    return y


@lru_cache(maxsize=1)
def code() -> ModuleType | None:
    """The module of Triton's code, None where Triton cannot be imported."""
    try:
        from pluria.predict.kernels import tiled
    except ImportError as error:
        warnings.warn(f"products of K members take the slow path, as Triton cannot be imported ({error})", stacklevel=2)
        return None
    return tiled


def _shape(operand: Operand) -> tuple[int, int]:
    held = operand.floor if isinstance(operand, Planes) else operand.base
    return held.shape[0], held.shape[1]


def _sources(operand: Operand) -> dict[str, object]:
    """The kernel's arguments that say what the members are made of."""
    tables: dict[str, object] = {"scale": operand.scale, "zero": operand.zero}
    if isinstance(operand, Planes):
        unused = {"span": 0.0, "groups_of": operand.scale, "masks": operand.scale, "k0": 0, "k1": 0, "tensor": 0}
        flags = {"STORED": True, "COMMON": True, "ALIGNED": True, "READ_WEIGHT": False}
        return {**tables, "weight": operand.floor, "planes": operand.planes, **unused, **flags}
    place, inputs = operand.addresses[0], operand.base.shape[1]
    k0, k1, tensor = (gpu.signed(word) for word in (*place.key.words, place.tensor))
    common = len({each.group for each in operand.addresses}) == 1
    drawn = {"span": gpu.limits(operand.grid)[1], "groups_of": operand.groups, "masks": operand.masks}
    flags = {"STORED": False, "COMMON": common, "ALIGNED": inputs // operand.scale.shape[1] % 4 == 0}
    memory = {"weight": gpu.pattern(operand.base), "planes": operand.scale}
    words = {"k0": k0, "k1": k1, "tensor": tensor}
    return {**tables, **drawn, **memory, **words, **flags, "READ_WEIGHT": gpu.patterned(operand.base)}


def _dot(x: Tensor, tiled: ModuleType) -> object:
    """The type of the product; Triton's interpreter multiplies bfloat16 as if it were integers, so it takes float32."""
    kinds = {torch.float32: tiled.tl.float32, torch.float16: tiled.tl.float16, torch.bfloat16: tiled.tl.bfloat16}
    return tiled.tl.float32 if gpu.interpreting() else kinds[x.dtype]
