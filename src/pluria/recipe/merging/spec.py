"""A merge of files as data: what is merged, how, and from where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pluria.merge.leaves import Counters

Settings = tuple[Sequence[float] | None, Mapping[str, Any]]
"""Mixing weights of the models, None for equal ones, and the method's options."""

Varying = Callable[[Sequence[str]], Callable[[str], Settings]]
"""All names of a model -> a tensor's name -> its settings."""


@dataclass(frozen=True)
class Merge:
    """A merge of files as data.

    method     a leafwise method of the catalogue; `options` are its own
    models     paths: safetensors or torch files, Hugging Face folders
    weights    one for each model, not negative; they are normalised. None: equal
    dtype      of what is written, "bfloat16"; None: that of the models, which must agree
    varying    settings that differ from tensor to tensor, in place of `weights` and `options`
    about      what the manifest says of `varying`
    """

    method: str
    models: tuple[str, ...]
    base: str | None = None
    weights: Sequence[float] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    dtype: str | None = None
    counters: Counters = "first"
    seed: int = 0
    varying: Varying | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
