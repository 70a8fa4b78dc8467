"""Checkpoints that are quantised already: rounding their numbers again would not be unbiased, so they are refused.

    by dtype   torch's quantised tensors, 8-bit floats, matrices of 8-bit integers that are weights
    by name    GPTQ and AWQ (qweight, qzeros), bitsandbytes (absmax, SCB, quant_state), HQQ (W_q), compressed tensors
               (weight_packed), torch's own packed modules (_packed_params)

Names that float networks may have too, such as `scales` or `weight_scale`, are no sign without such a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pluria.core.errors import CheckpointError

METHODS: dict[str, str] = {
    "qweight": "GPTQ or AWQ",
    "qzeros": "GPTQ or AWQ",
    "g_idx": "GPTQ",
    "SCB": "bitsandbytes, 8 bits",
    "weight_format": "bitsandbytes, 8 bits",
    "absmax": "bitsandbytes, 4 bits",
    "quant_map": "bitsandbytes, 4 bits",
    "nested_absmax": "bitsandbytes, 4 bits",
    "nested_quant_map": "bitsandbytes, 4 bits",
    "weight_packed": "compressed tensors",
    "weight_zero_point": "compressed tensors",
    "W_q": "HQQ",
    "_packed_params": "torch's quantised modules",
}
"""Last part of a tensor's name, and what writes it."""

INSTEAD = (
    "and rounding it again would not be unbiased. Give the 16 or 32-bit floating-point checkpoint it was made from"
)

BYTES = (torch.int8, torch.uint8)


def refuse_quantised(entries: Mapping[str, Any], *, what: str) -> None:
    """Raise CheckpointError where a checkpoint's names or dtypes say that it is quantised."""
    for name, value in entries.items():
        if reason := _reason(name, value):
            raise CheckpointError(f"{what} is quantised already ({reason}: {name}), {INSTEAD}")


def refuse_configured(config: Mapping[str, Any], *, what: str) -> None:
    """Raise CheckpointError where a Hugging Face configuration names a quantisation."""
    if quantisation := config.get("quantization_config"):
        method = quantisation.get("quant_method", "unnamed") if isinstance(quantisation, dict) else quantisation
        raise CheckpointError(f"{what} is quantised already (config.json names the method {method!r}), {INSTEAD}")


def _reason(name: str, value: Any) -> str | None:
    last = name.rsplit(".", 1)[-1]
    if ".quant_state." in name:
        return "bitsandbytes, 4 bits"
    if last in METHODS:
        return METHODS[last]
    if not isinstance(value, torch.Tensor):
        return None
    if value.is_quantized or (value.dtype.is_floating_point and value.dtype.itemsize == 1):
        return str(value.dtype)
    if value.dtype in BYTES and value.ndim >= 2 and name.endswith(("weight", "weight._data")):
        return f"a weight of {value.dtype}"
    return None
