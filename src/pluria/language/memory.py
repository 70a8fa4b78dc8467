"""Bytes that members of a language model take while they run, what is free, and how many members fit.

cache of one text   2 x layers x key heads x head size x tokens        keys and values
behind an encoder   the same again for the text that was read, and that text's states, tokens x width
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from pluria.core.sizes import readable

LAYERS = ("num_decoder_layers", "decoder_layers", "num_hidden_layers", "n_layer", "num_layers")
HEADS = ("num_attention_heads", "n_head", "num_heads", "decoder_attention_heads")
WIDTH = ("hidden_size", "n_embd", "d_model")
"""What configurations call these."""


def cache_numbers(config: Mapping[str, Any], tokens: int, *, read: int | None = None) -> int:
    """Numbers that one member keeps for one text of so many tokens; 0 where the configuration does not say.

    read   tokens of the text that an encoder read for it, as many as are written by default
    """
    layers, heads, width = (first(config, *names) for names in (LAYERS, HEADS, WIDTH))
    if not layers or not heads or not width:
        return 0
    size = first(config, "head_dim", "d_kv") or width // heads
    each = 2 * layers * (first(config, "num_key_value_heads") or heads) * size
    if not config.get("is_encoder_decoder"):
        return each * tokens
    seen = tokens if read is None else read
    return each * (tokens + seen) + seen * width


def first(config: Mapping[str, Any], *names: str) -> int | None:
    """The first of several names that a configuration has as a whole number."""
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def free_bytes(device: torch.device) -> int | None:
    """Bytes that may be taken on a device; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory() if device.type == "cpu" else None


def free_memory() -> int | None:
    """Bytes that may be taken without others being pushed out; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def refuse_members(count: int, each: int, free: int | None, *, instead: str) -> None:
    """Raise ValueError where `count` members of `each` bytes are more than is free, and say how many fit."""
    if free is not None and count * each > free:
        raise ValueError(
            f"{count} members take {readable(each)} each and {readable(free)} are free: {free // each} fit. Take "
            f"fewer members, or {instead}"
        )
