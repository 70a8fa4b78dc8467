"""Files to one model: what `merge/` does with tensors and `store/` with files, joined.

headers -> checks, layout, cost -> (told, nothing written yet) -> pieces over threads -> manifest -> in place at once
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pluria.core.errors import CheckpointError, PluriaError
from pluria.core.weights import checked_weights
from pluria.merge.engine import measure_apart, run
from pluria.merge.leaves import leaves_of, whole_numbers
from pluria.merge.pieces import Leaf, Task
from pluria.merge.rule import Named, Rule, Rules
from pluria.recipe.catalogue import methods
from pluria.recipe.merging.cost import Cost, cost_of
from pluria.recipe.merging.manifest import inputs, manifest
from pluria.recipe.merging.spec import Merge
from pluria.recipe.merging.target import Layout, layout_of, refuse_inputs, write_beside
from pluria.recipe.method import Method
from pluria.recipe.plain import nearest_name
from pluria.recipe.typed import check_finite, check_type
from pluria.store.receiving import Receiver, receiving
from pluria.store.shards import SHARD
from pluria.store.streamed import Streamed, hashed, streamed
from pluria.store.tensors import DTYPES


def merge_files(
    merge: Merge,
    out: str | os.PathLike[str],
    *,
    threads: int | None = None,
    shard: int = SHARD,
    overwrite: bool = False,
    restart: bool = False,
    dry_run: bool = False,
    told: Callable[[Cost], None] = lambda cost: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Cost:
    """Merge checkpoints on disk into the file or Hugging Face folder `out`, and return what it cost.

    threads    None: as many as torch has; they change no bit
    shard      bytes in a file of a folder whose source has one file
    overwrite  whether a folder with something in it is replaced
    restart    forget what an interrupted merge has left; else it is gone on with, to the same bytes
    told       is given the cost before anything is written; `progress` bytes that are written, and in all

    Only headers and pieces are read, whatever the size of the models. A safetensors file carries its manifest as the
    text `merge` in its header, a folder as `merge.json`: method, options, weights, and each source's sha256. Raises
    CheckpointError for models that do not fit each other, NaN and Inf; ValueError and PluriaError for a method or
    options that do not exist, a target that is a source, too little room; OSError with the old output untouched.
    """
    with streamed([*merge.models, *([] if merge.base is None else [merge.base])]) as sources:
        members, base = sources[: len(merge.models)], None if merge.base is None else sources[-1]
        leaves = _leaves(merge, members, base)
        refuse_inputs(Path(out), sources, inputs(merge))
        layout = layout_of(base or members[0], leaves, Path(out), shard=shard, overwrite=overwrite)
        count = torch.get_num_threads() if threads is None else threads
        cost = cost_of(leaves, sources, layout, count)
        whole = whole_numbers(members, base, merge.counters)
        told(cost)
        if not dry_run:
            _write(merge, members, base, leaves, whole, layout, count, restart, progress)
    return cost


def _leaves(merge: Merge, members: Sequence[Streamed], base: Streamed | None) -> list[Leaf]:
    if not members:
        raise ValueError("nothing to merge; give one model or more")
    names = list(members[0].outline)
    tied = _tied([*members, *([] if base is None else [base])])
    settings = merge.varying(names) if merge.varying else lambda name: (merge.weights, merge.options)
    made: dict[str, Rules] = {}

    def rule(name: str) -> Rule:
        # Statistics over the whole model need one rule for all tensors.
        options = settings(name)[1]
        known = json.dumps(options, sort_keys=True, default=str)
        if known not in made:
            made[known] = fresh = rule_of(merge.method, options, merge.seed)
            if isinstance(fresh, Named):
                fresh.check([each for each in names if each not in tied])
        own = made[known]
        return own if isinstance(own, Rule) else own(name)

    def weights(name: str) -> Tensor:
        return normalised(settings(name)[0], len(members))

    leaves = leaves_of(members, base, rule, weights, dtype=dtype_of(merge.dtype))
    if base is not None and leaves and not any(leaf.rule.needs_base for leaf in leaves):
        raise ValueError(f"{merge.method} reads no base; leave it out, or give it as one of the models")
    if measure_apart(leaves):
        raise ValueError(f"{merge.method} measures the whole model, so its options are the same for all tensors")
    return [leaf for leaf in leaves if leaf.name not in tied]


def rule_of(method: str, options: Mapping[str, Any], seed: int = 0) -> Rules:
    """The rule of a leafwise method of the catalogue, or that of each tensor by its name.

    Raises PluriaError for another method, and for options that it does not have, or has no default for.
    """
    row = checked_options(method, options)
    if row.maker is None:
        raise PluriaError(f"{method} is no merge tensor by tensor: it needs {row.needs}, and the models in memory")
    make = row.make
    seeded = {"key": seed} if "key" in inspect.signature(make).parameters else {}
    made: Rules = make(**options, **seeded)
    if not (isinstance(made, Rule) or callable(made)):
        raise TypeError(f"{method}: a leafwise method gives a Rule; got {type(made).__name__}")
    return made


def checked_options(method: str, options: Mapping[str, Any]) -> Method:
    """The row of a merge whose options are known, of their types, and there where needed; PluriaError otherwise."""
    rows = {row.name: row for row in methods("merge") if row.maker or row.runner}
    if method not in rows:
        raise PluriaError(f"no method {method!r} merges files{nearest_name(method, sorted(rows))}")
    known = rows[method].options()
    if unknown := [name for name in options if name not in known]:
        there = nearest_name(unknown[0], sorted(known)) if known else "; it has none"
        raise PluriaError(f"{method} has no option {unknown[0]!r}{there}")
    needed = [name for name, each in known.items() if each.default is each.empty and name not in options]
    if needed:
        raise PluriaError(f"{method} needs the option {needed[0]!r}")
    for name, value in options.items():
        check_finite(name, value)
        check_type(name, value, known[name].annotation)
    return rows[method]


def dtype_of(name: str | None) -> torch.dtype | None:
    """A floating dtype of 16 bits or more by its name; ValueError for another."""
    known = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
    wide = [each for each, dtype in known.items() if dtype.is_floating_point and dtype.itemsize > 1]
    if name is not None and name not in wide:
        raise ValueError(f"a dtype is one of {', '.join(sorted(wide))}; got {name!r}")
    return None if name is None else known[name]


def normalised(weights: Sequence[float] | None, count: int) -> Tensor:
    """Mixing weights `[K]` of sum one, equal ones for None; ValueError for another number, negative or all zero."""
    held = checked_weights(torch.tensor([1.0] * count if weights is None else list(weights), dtype=torch.float64))
    if held.shape != (count,):
        raise ValueError(f"{count} models need {count} weights; got {held.tolist()}")
    if not float(held.sum()) > 0:
        raise ValueError(f"mixing weights are not all zero; got {held.tolist()}")
    return held / held.sum()


def _tied(sources: Sequence[Streamed]) -> dict[str, str]:
    """Names that share a tensor in every model, to the first name of it."""
    return {name: to for name, to in sources[0].ties.items() if all(s.ties.get(name) == to for s in sources)}


def _write(
    merge: Merge,
    members: Sequence[Streamed],
    base: Streamed | None,
    leaves: Sequence[Leaf],
    whole: Mapping[str, Tensor],
    layout: Layout,
    threads: int,
    restart: bool,
    progress: Callable[[int, int], None],
) -> None:
    sources = [*members, *([] if base is None else [base])]
    stamps = [source.stamp() for source in sources]
    draft = manifest(merge, sources, {})
    identity = json.dumps([draft, stamps], sort_keys=True)
    options: dict[str, Any] = {"identity": identity, "folder": layout.origin is not None, "restart": restart}
    texts = layout.texts(draft)
    with receiving(layout.out, layout.files, texts, **options) as receiver, _hashes(sources, threads) as found:
        for name, value in whole.items():
            receiver.write(name, 0, value.reshape(-1))
        task = Task(members, base, *_written(receiver, layout, _tied(sources), progress))
        run(task, leaves, skip=receiver.done, threads=threads)
        if [source.stamp() for source in sources] != stamps:
            raise CheckpointError("a model was changed while it was merged. Merge again")
        final = manifest(merge, sources, found())
        receiver.retell(layout.texts(final), layout.files)
        write_beside(receiver.folder, layout, final, merge.dtype)


def _written(
    receiver: Receiver, layout: Layout, ties: Mapping[str, str], progress: Callable[[int, int], None]
) -> tuple[Callable[[str, int, Tensor], None], Callable[[str], None]]:
    """How pieces are written, to every name of a tied tensor, and how tensors are marked."""
    also: dict[str, list[str]] = {}
    for name, first in ties.items():
        also.setdefault(first, []).append(name)
    sizes = layout.sizes
    total, state = sum(sizes.values()), [sum(sizes[name] for name in receiver.done)]

    def write(name: str, start: int, values: Tensor) -> None:
        for each in (name, *also.get(name, ())):
            receiver.write(each, start, values)

    def done(name: str) -> None:
        receiver.mark(name)
        state[0] += sum(sizes[each] for each in (name, *also.get(name, ())))
        progress(state[0], total)

    return write, done


@contextmanager
def _hashes(sources: Sequence[Streamed], threads: int) -> Iterator[Callable[[], dict[Path, str]]]:
    """The sha256 of every file, computed beside the merge, which reads the same bytes."""
    files = list(dict.fromkeys(file for source in sources for file in source.files))
    pool = ThreadPoolExecutor(min(threads, len(files)))
    futures = [pool.submit(hashed, file) for file in files]
    try:
        yield lambda: {file: future.result() for file, future in zip(files, futures, strict=True)}
    finally:
        pool.shutdown(cancel_futures=True)
