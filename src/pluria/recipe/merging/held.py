"""Merges that run the network, or hold all models: files to memory, to one model on disk.

headers -> checks, layout, cost -> (told, nothing written yet) -> models and network in memory -> merged -> in place
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from torch import Tensor, nn

from pluria.align import rebasin
from pluria.core.ensemble import Ensemble, stack
from pluria.core.errors import PluriaError
from pluria.core.model import tensors
from pluria.core.params import Params, check_fit, params_of
from pluria.merge.leafwise import leafwise
from pluria.merge.leaves import leaves_of
from pluria.merge.linear import linear
from pluria.merge.pieces import Leaf
from pluria.numbers.narrow import narrowed
from pluria.recipe.merging.bench import Bench, check_rows
from pluria.recipe.merging.cost import Cost, cost_of
from pluria.recipe.merging.files import checked_options, dtype_of, normalised, rule_of
from pluria.recipe.merging.manifest import inputs, whole
from pluria.recipe.merging.spec import Merge
from pluria.recipe.merging.target import (
    Layout,
    folder_of,
    layout_of,
    outline_of,
    refuse_inputs,
    write_beside,
    write_manifest,
)
from pluria.recipe.method import Method
from pluria.store.checkpoint import read_checkpoint
from pluria.store.export import export_members
from pluria.store.pretrained import network_in
from pluria.store.receiving import receiving
from pluria.store.shards import SHARD, appearing
from pluria.store.streamed import Streamed, streamed
from pluria.store.tensors import raw
from pluria.zoo.dataset import Batches

TO_MEMBERS = ("mix", "zip_trunk")
"""Methods that give as many models as they take, which are written into a folder."""


def merge_held(
    merge: Merge,
    out: str | os.PathLike[str],
    *,
    network: nn.Module | None = None,
    rows: Sequence[Batches] = (),
    align: Literal["weights", "activations"] | None = None,
    repair: bool = False,
    shard: int = SHARD,
    overwrite: bool = False,
    dry_run: bool = False,
    about: Mapping[str, Any] = MappingProxyType({}),
    told: Callable[[Cost], None] = lambda cost: None,
) -> Cost:
    """Merge checkpoints that are held in memory into `out`, by any method that is no rule, or by a rule.

    network   what the models' tensors belong to; `rows` are batches that it is run on, one set or one for each model
    align     re-basin before the merge: hidden places of all models permuted to those of the first
    repair    after it: batch-norm statistics refreshed, or layers that vary too little made larger
    about     what the manifest says of the network and the rows beside the rows' own hashes

    Raises what `merge_files` raises, and ValueError for a network or rows that are missing, or that nothing reads.
    """
    row = _row(merge, network is not None, align is not None or repair)
    check_rows(rows, len(merge.models))
    with streamed([*merge.models, *([] if merge.base is None else [merge.base])]) as sources:
        members, base = sources[: len(merge.models)], None if merge.base is None else sources[-1]
        if not members:
            raise ValueError("nothing to merge; give one model or more")
        weights = normalised(merge.weights, len(members))
        leaves = leaves_of(members, base, linear(), weights, dtype=dtype_of(merge.dtype))
        layout = _layout(merge, sources, base or members[0], leaves, Path(out), shard, overwrite)
        cost = _cost(leaves, sources, layout)
        told(cost)
        if not dry_run:
            held = [_params(source.label, network) for source in sources]
            ensemble = stack(held[: len(members)]).reweight(weights)
            bench = Bench(ensemble, None if base is None else held[-1], network, tuple(rows), merge.seed, repair)
            bench = bench if align is None else _aligned(bench, align)
            run = {**about, "rows_sha256": list(map(hashed_rows, rows)), "align": align, "repair": repair}
            made, final = _made(row, merge, bench), whole(merge, sources, run=run)
            if isinstance(made, Ensemble):
                write_members(made if merge.dtype is None else _cast(made, layout.files["0"]), layout.out, final)
            else:
                _put(merge, final, layout, _as_stored(made, network, layout))
    return cost


def _row(merge: Merge, network: bool, changes: bool) -> Method:
    """The row of a method, once its options are known to exist."""
    row = checked_options(merge.method, merge.options)
    if merge.varying:
        raise ValueError("a recipe of mergekit runs no network: leave out --model, --data, --align and --repair")
    if row.runner and merge.counters != "first":
        raise ValueError(f"{merge.method} copies counts of batches; leave out --counters")
    if merge.weights is not None and ("weights" not in row.reads or "optimiser" in merge.options):
        raise ValueError(f"{merge.method} counts all models alike and reads no weights; leave out --weights")
    if merge.base is not None and row.runner and "base" not in row.reads:
        raise ValueError(f"{merge.method} reads no base; leave out --base")
    if row.maker and not changes:
        raise ValueError(
            f"{merge.method} runs no network: leave out --model and --data, or ask for --align or --repair"
        )
    if changes and not network:
        raise ValueError("--align and --repair run the network: give --model and --data")
    if changes and (merge.base is not None or row.name == "merge_experts"):
        raise ValueError("--align and --repair are for networks that were trained apart, without a base")
    return row


def _made(row: Method, merge: Merge, bench: Bench) -> Params | Ensemble:
    if row.maker:
        rule = rule_of(merge.method, merge.options, merge.seed)
        options: dict[str, Any] = {"dtype": dtype_of(merge.dtype), "counters": merge.counters}
        rounded = leafwise(bench.ensemble, rule, base=bench.base, **options)
        # What is repaired are the numbers that are written, in the dtype of the network.
        families = bench.ensemble.families
        made: Params | Ensemble = {name: value.to(families[name].dtype) for name, value in rounded.items()}
    else:
        made = row.run(bench, merge.options)
    if isinstance(made, Ensemble):
        return stack([bench.mended(params) for params in made]).reweight(made.weights) if bench.repaired else made
    return bench.mended(made)


def _aligned(bench: Bench, by: Literal["weights", "activations"]) -> Bench:
    return replace(bench, ensemble=rebasin(bench.model, bench.ensemble, bench.inputs(), by=by))


def _params(path: str, network: nn.Module | None) -> Params:
    """A model's tensors, by the names that its network has for them."""
    if network is not None and (Path(path) / "config.json").is_file():
        return params_of(network_in(path))
    found = read_checkpoint(path).params
    if network is not None:
        check_fit(found, tensors(network), what=path)
    return found


def _layout(
    merge: Merge, sources: Sequence[Streamed], first: Streamed, leaves: Sequence[Leaf], out: Path, shard: int,
    overwrite: bool,
) -> Layout:  # fmt: skip
    refuse_inputs(out, sources, inputs(merge))
    if merge.method not in TO_MEMBERS:
        return layout_of(first, leaves, out, shard=shard, overwrite=overwrite)
    folder_of(out, f"{merge.method} gives as many models as it takes", overwrite)
    return Layout(out, {f"{k}": outline_of(first, leaves) for k in range(len(merge.models))}, None)


def _cost(leaves: Sequence[Leaf], sources: Sequence[Streamed], layout: Layout) -> Cost:
    size = sum(v.numel() * v.element_size() for source in sources for v in source.outline.values())
    return replace(cost_of(leaves, sources, layout, 1), readings=1, read=size, memory=size)


def _as_stored(made: Params, network: nn.Module | None, layout: Layout) -> Params:
    """Tensors by the names of the first source's files; transformers has other names for some in its networks."""
    if all(name in made for name in layout.sizes):
        return made
    save: Any = getattr(network, "save_pretrained", None)
    if network is None or save is None:
        raise PluriaError(f"what was merged has no {next(n for n in layout.sizes if n not in made)}, which is written")
    with tempfile.TemporaryDirectory(dir=layout.out.absolute().parent) as folder:
        network.load_state_dict(dict(made), strict=False)
        save(folder)
        return read_checkpoint(folder).params


def hashed_rows(rows: Batches) -> str:
    """sha256 of all inputs and targets, in their order."""
    digest = hashlib.sha256()
    for batch in rows:
        for tensor in batch:
            digest.update(raw(tensor.contiguous()))
    return digest.hexdigest()


def _cast(made: Ensemble, like: Mapping[str, Tensor]) -> Ensemble:
    """Members in the dtypes that are written."""
    each = [{n: narrowed(v, like[n].dtype) if n in like else v for n, v in params.items()} for params in made]
    return stack(each).reweight(made.weights)


def write_members(ensemble: Ensemble, out: Path, final: Mapping[str, Any]) -> None:
    """Write members and where they came from as one folder, which appears whole."""
    with appearing(out) as folder:
        export_members(ensemble, folder)
        write_manifest(folder, final)


def _put(merge: Merge, final: Mapping[str, Any], layout: Layout, made: Params) -> None:
    """Write what was merged, with where it came from."""
    identity, texts = json.dumps(final, sort_keys=True), layout.texts(final)
    options: dict[str, Any] = {"identity": identity, "folder": layout.origin is not None, "restart": True}
    with receiving(layout.out, layout.files, texts, **options) as receiver:
        for names in layout.files.values():
            for name, like in names.items():
                receiver.write(name, 0, narrowed(made[name].detach(), like.dtype).contiguous().reshape(-1))
                receiver.mark(name)
        write_beside(receiver.folder, layout, final, merge.dtype)
