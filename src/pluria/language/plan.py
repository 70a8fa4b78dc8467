"""What an ensemble of a language model takes in memory, read from a folder's headers before anything is loaded.

all = base + working copy + K members + caches + logits + one tensor

base           tensors as the files hold them; nothing where they are memory-mapped
working copy   the network that members are written into
a member       nothing where it is rounded when it is asked for; b bits a weight, and scales, where codes are kept
caches         K members x what pluria.language.memory says x batch x bytes
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
from pluria.core.sizes import readable
from pluria.language.memory import cache_numbers, first, free_memory
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
    limit = first(config, "max_position_embeddings", "n_positions", "n_ctx")
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
        caches=cache_numbers(config, context) * batch * width if _writes(config) else 0,
        logits=batch * context * (first(config, "vocab_size") or 0) * (width + 4) if _writes(config) else 0,
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


def _writes(config: Mapping[str, Any]) -> bool:
    """Whether the network gives words, and so has caches and logits over words."""
    kinds = config.get("architectures") or []
    return any(str(kind).endswith(("CausalLM", "LMHeadModel", "ConditionalGeneration")) for kind in kinds)


def _bytes(value: Tensor) -> int:
    return value.numel() * value.element_size()
