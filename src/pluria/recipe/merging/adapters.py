"""Merges of LoRA adapters that lie in folders: added to a base, summed, read off a fine-tune, weighted by texts.

add_adapters      one base, in pieces like any merge of files          sum_adapters, extract_adapter   to a folder
adapted           the same, with weights that texts of a new domain give: `composing.py`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pluria.core.adapter import Adapter
from pluria.merge.adapters import extract_adapter, sum_adapters
from pluria.merge.adding import adding
from pluria.merge.rule import Rules
from pluria.recipe.merging.manifest import AdapterFiles, Origin, inputs, whole
from pluria.recipe.merging.spec import Merge
from pluria.recipe.merging.target import folder_of, refuse_inputs, write_manifest
from pluria.recipe.typed import check_finite
from pluria.store.checkpoint import read_checkpoint
from pluria.store.peft import read_peft, write_peft
from pluria.store.shards import appearing
from pluria.store.streamed import streamed

ONTO_BASE = ("add_adapters", "adapted")
"""Methods whose models are adapters, and whose one member is the base."""

_IN_OPTIONS = "; give `weights` among its options, of any sign and sum"


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
    if merge.base is not None:
        raise ValueError("sum_adapters reads no base; leave it out")
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
    refuse_inputs(out, [], inputs(merge))
    folder_of(out, "an adapter is a folder", overwrite)
    made = TO_FOLDER[merge.method](merge)
    if not made:
        raise ValueError("the models are equal, so there is nothing for an adapter to hold")
    if not dry_run:
        with _origins(merge) as sources, appearing(out) as folder:
            write_peft(made, folder)
            write_manifest(folder, whole(merge, sources))
    return len(made)


@contextmanager
def _origins(merge: Merge) -> Iterator[list[Origin]]:
    """What the models of a method of `TO_FOLDER` are read from."""
    if merge.method == "sum_adapters":
        yield [AdapterFiles(path) for path in merge.models]
    else:
        with streamed([*merge.models, *([] if merge.base is None else [merge.base])]) as sources:
            yield list(sources)


def _options(merge: Merge, known: Sequence[str]) -> dict[str, Any]:
    for name, value in merge.options.items():
        check_finite(name, value)
    if merge.weights is not None:
        raise ValueError(f"{merge.method} reads no mixing weights{_IN_OPTIONS * ('weights' in known)}")
    if odd := [name for name in merge.options if name not in known]:
        raise ValueError(f"{merge.method} has no option {odd[0]!r}; its options are {', '.join(known)}")
    return dict(merge.options)
