"""What an ensemble of a language model takes in memory, read from a folder's headers before anything is loaded.

all = base + working copy + K members + caches + logits + one tensor

base           tensors as the files hold them; nothing where they are memory-mapped
working copy   the network that members are written into
a member       nothing where it is rounded when it is asked for; b bits a weight, and scales, where codes are kept
caches         K members x 2 x layers x heads x head size x context x batch x bytes
logits         of one member over the context, and their running mean in float32
one tensor     the largest, while it is made
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from pluria.core.errors import CheckpointError, PluriaError
from pluria.core.model import ROUNDED, guess_roles
from pluria.numbers.format import number_format
from pluria.store.outline import outline_in

Kept = Literal["rounded", "codes"]
SCALE = 4
"""Bytes of the scale of an output channel."""


@dataclass(frozen=True)
class Plan:
    """Bytes, by what takes them; `caches` and `codes` are for one member, the rest is the same for any number."""

    members: int
    parameters: int
    base: int
    working_copy: int
    codes: int
    caches: int
    logits: int
    tensor: int
    available: int | None

    @property
    def fixed(self) -> int:
        """What does not depend on the number of members."""
        return self.base + self.working_copy + self.logits + self.tensor

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.fixed + self.members * (self.codes + self.caches)

    @property
    def fits(self) -> int | None:
        """How many members fit, those asked for where one takes nothing; None where what is free is not known."""
        if self.available is None:
            return None
        left, each = self.available - self.fixed, self.codes + self.caches
        if left < 0:
            return 0
        return self.members if each == 0 else left // each


def memory_plan(
    folder: str | os.PathLike[str],
    *,
    members: int = 8,
    format: str = "int5",
    kept: Kept = "rounded",
    context: int = 2048,
    batch: int = 1,
    mapped: bool = True,
    available: int | None = None,
) -> Plan:
    """The memory plan of a Hugging Face folder; only headers and the configuration are read.

    format      number system of members that are kept as codes
    kept        "rounded" when they are asked for, as `low_precision` does, or as "codes", as `compensated` does
    context     tokens of a text, caches and logits are for so many; not more than the network takes
    batch       texts at a time
    mapped      whether the base is read from its files where it is used; otherwise it is held
    available   bytes that may be taken; left out, what the system has free, where it says so

    Dtypes are those of the files. A network without text has no caches. Raises CheckpointError for a folder without a
    configuration or checkpoint, with a missing shard, or quantised already; ValueError for a bad option.
    """
    _check(members, context, batch, kept)
    system, place = number_format(format), Path(folder)
    config = _config(place)
    held = {name: value for names in outline_in(place).values() for name, value in names.items()}
    limit = _first(config, "max_position_embeddings", "n_positions", "n_ctx")
    if limit is not None and context > limit:
        raise ValueError(f"{place} takes texts of up to {limit} tokens; got a context of {context}")
    sizes = [_bytes(value) for value in held.values()]
    width = max(value.element_size() for value in held.values())
    rounded = [held[name] for name, role in guess_roles(held).items() if role.kind in ROUNDED]
    codes = sum((value.numel() * system.bits + 7) // 8 + SCALE * len(value) for value in rounded)
    return Plan(
        members=members,
        parameters=sum(value.numel() for value in held.values()),
        base=0 if mapped else sum(sizes),
        working_copy=sum(sizes),
        codes=codes if kept == "codes" else 0,
        caches=_cache(config, context) * batch * width,
        logits=batch * context * (_first(config, "vocab_size") or 0) * (width + 4) if _writes(config) else 0,
        tensor=max(sizes),
        available=free_memory() if available is None else available,
    )


def refuse_over(plan: Plan) -> None:
    """Raise PluriaError that says how many members fit, where those of the plan do not."""
    if plan.available is not None and plan.total > plan.available:
        most = plan.fits or 0
        what = f"{most} of them fit" if most else "not even one fits"
        raise PluriaError(
            f"{plan.members} members take {readable(plan.total)} and {readable(plan.available)} are free: {what}. Ask "
            "for fewer members, a shorter context or a smaller batch"
        )


def readable(count: int) -> str:
    """Bytes in words, with three digits."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 100 * size else f"{count / size:.0f} {unit}"
    return f"{count} bytes"


def free_memory() -> int | None:
    """Bytes that may be taken without others being pushed out; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _check(members: int, context: int, batch: int, kept: str) -> None:
    for what, value in (("members", members), ("context", context), ("batch", batch)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{what} is a whole number from 1; got {value!r}")
    if kept not in ("rounded", "codes"):
        raise ValueError(f"members are kept as 'rounded' or 'codes'; got {kept!r}")


def _config(folder: Path) -> dict[str, Any]:
    """The configuration, that of the text where there are several."""
    file = folder / "config.json"
    if not file.is_file():
        raise CheckpointError(f"{folder}: this is no Hugging Face folder, it has no config.json")
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from None
    if not isinstance(held, dict):
        raise CheckpointError(f"{file} holds no mapping")
    text = held.get("text_config")
    return {**held, **text} if isinstance(text, dict) else held


def _first(config: Mapping[str, Any], *names: str) -> int | None:
    """The first of several names that a configuration has as a whole number."""
    return next((config[name] for name in names if isinstance(config.get(name), int)), None)


def _writes(config: Mapping[str, Any]) -> bool:
    """Whether the network gives words, and so has caches and logits over words."""
    kinds = config.get("architectures") or []
    return any(str(kind).endswith(("CausalLM", "LMHeadModel", "ConditionalGeneration")) for kind in kinds)


def _cache(config: Mapping[str, Any], context: int) -> int:
    """Numbers in one member's caches for one text; a decoder behind an encoder keeps the encoder's text as well."""
    layers = _first(config, "num_decoder_layers", "decoder_layers", "num_hidden_layers", "n_layer", "num_layers")
    heads = _first(config, "num_attention_heads", "n_head", "num_heads", "decoder_attention_heads")
    width = _first(config, "hidden_size", "n_embd", "d_model")
    if not _writes(config) or layers is None or heads is None or width is None:
        return 0
    size = _first(config, "head_dim", "d_kv") or width // heads
    texts = 2 if config.get("is_encoder_decoder") else 1
    return 2 * layers * (_first(config, "num_key_value_heads") or heads) * size * context * texts


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()
