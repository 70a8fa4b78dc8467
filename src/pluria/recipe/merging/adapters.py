"""Merges of LoRA adapters that lie in folders: added to a base, summed, read off a fine-tune, weighted by texts.

add_adapters      one base, in pieces like any merge of files          sum_adapters, extract_adapter   to a folder
adapted           the same, with weights that texts of a new domain give: `composing.py`
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pluria.core.adapter import Adapter
from pluria.core.errors import PluriaError
from pluria.merge.adapters import extract_adapter, sum_adapters
from pluria.merge.adding import adding
from pluria.merge.rule import Rules
from pluria.recipe.merging.files import Merge
from pluria.store.checkpoint import read_checkpoint
from pluria.store.peft import read_peft, write_peft

ONTO_BASE = ("add_adapters", "adapted")
"""Methods whose models are adapters, and whose one member is the base."""


def onto_base(merge: Merge) -> Merge:
    """The same merge with the base as its one model, and the adapters as an option.

    Raises ValueError without a base, and for mixing weights, which those of adapters are not.
    """
    if merge.base is None:
        raise ValueError(f"{merge.method} adds adapters to a base; give it as `base`")
    if merge.weights is not None:
        raise ValueError(f"{merge.method} reads no normalised weights; give `weights` among its options, one for each")
    options = {**merge.options, "adapters": list(merge.models)}
    if merge.method == "adapted":
        options["base"] = merge.base
    return replace(merge, models=(merge.base,), base=None, options=options)


def add_adapters(*, adapters: Sequence[str], weights: Sequence[float] | None = None) -> Rules:
    """Adapters in folders, added with weights of any sign and sum."""
    return adding([read_peft(folder) for folder in adapters], weights)


def summed(merge: Merge) -> Adapter:
    """The adapters of a merge as one: options `weights` and `rank`."""
    return sum_adapters([read_peft(folder) for folder in merge.models], **_options(merge, ("weights", "rank")))


def extracted(merge: Merge) -> Adapter:
    """The adapter between the base of a merge and its one model: options `rank`, and name patterns as `names`."""
    options = _options(merge, ("rank", "names"))
    if merge.base is None or len(merge.models) != 1 or "rank" not in options:
        raise ValueError("extract_adapter takes one fine-tune, its `base`, and the option `rank`")
    base, tuned = (read_checkpoint(path, mapped=True).params for path in (merge.base, merge.models[0]))
    names = None
    if "names" in options:
        patterns = [options["names"]] if isinstance(options["names"], str) else options["names"]
        names = [name for name in base if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return extract_adapter(base, tuned, rank=options["rank"], names=names)


TO_FOLDER: Mapping[str, Callable[[Merge], Adapter]] = {"sum_adapters": summed, "extract_adapter": extracted}
"""Methods that give an adapter, which is written as a folder that PEFT reads."""


def write_adapter(merge: Merge, out: Path, *, overwrite: bool = False, dry_run: bool = False) -> int:
    """Make an adapter by a method of `TO_FOLDER` and write it to the folder `out`; how many matrices it has.

    Raises PluriaError where `out` is a file or a model, FileExistsError for a folder that is not empty.
    """
    paths = [Path(path) for path in (*merge.models, *filter(None, [merge.base]))]
    if any(os.path.realpath(path) == os.path.realpath(out) for path in paths):
        raise PluriaError(f"{out} is one of the models; name another place")
    if out.is_file() or out.suffix == ".safetensors":
        raise PluriaError(f"{out}: an adapter is a folder; name one")
    if not out.absolute().parent.is_dir():
        raise PluriaError(f"{out}: there is no folder {out.absolute().parent}; make it first")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise FileExistsError(17, "there is something already; name another folder, or have it replaced by overwrite",
                              str(out))  # fmt: skip
    made = TO_FOLDER[merge.method](merge)
    if not made:
        raise ValueError("the models are equal, so there is nothing for an adapter to hold")
    if not dry_run:
        write_peft(made, out)
    return len(made)


def _options(merge: Merge, known: Sequence[str]) -> dict[str, Any]:
    if odd := [name for name in merge.options if name not in known]:
        raise ValueError(f"{merge.method} has no option {odd[0]!r}; its options are {', '.join(known)}")
    return dict(merge.options)
