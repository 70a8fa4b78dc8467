"""Experts of a mixture in one model, merged into fewer by what the router says of some rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from pluria.core.calling import call
from pluria.core.params import Params
from pluria.merge import experts as merging
from pluria.predict import logits
from pluria.recipe.merging.bench import Bench


def merge_experts(
    bench: Bench,
    *,
    keep: int,
    router: str,
    experts: Sequence[str],
    top: int = 1,
    hidden: Mapping[str, int] | None = None,
) -> Params:
    """A network whose routers choose among `keep` different experts, of all layers together; its shapes stay.

    router    a name pattern of the modules that give router logits `[.., E]`
    experts   names of the stacked tensors `[E, ...]` beside the router: `up` is `block.up` for the router `block.gate`
    top       how many experts a token goes to
    hidden    the hidden axis of stacked tensors, to permute places by the best match
    """
    if len(bench.ensemble) != 1:
        raise ValueError(f"merge_experts takes one model, whose experts it merges; got {len(bench.ensemble)}")
    params = dict(bench.ensemble.params(bench.ensemble.members[0]))
    bench.model.load_state_dict(params)
    with _routed(bench.model, router) as seen, torch.no_grad():
        for x in bench.inputs():
            call(bench.model, x)
    said = {name: torch.cat(rows) for name, rows in seen.items()}
    usage = [merging.expert_usage(rows, top) for rows in said.values()]
    groups = merging.expert_groups(usage, [rows.T for rows in said.values()], keep=keep)
    for name, used, group in zip(said, usage, groups, strict=True):
        own = {tensor: _named(params, name, tensor) for tensor in experts}
        merged = merging.merge_experts({t: params[n] for t, n in own.items()}, used, group, hidden=hidden)
        params |= {own[tensor]: value[group] for tensor, value in merged.items()}
    return params


@contextmanager
def _routed(model: nn.Module, pattern: str) -> Iterator[dict[str, list[Tensor]]]:
    """Router logits `[N, E]` of every module that the pattern names, while the model is run."""
    found: dict[str, list[Tensor]] = {
        name: [] for name, _ in model.named_modules() if name and fnmatchcase(name, pattern)
    }
    if not found:
        raise ValueError(f"router={pattern!r} names no module; there are {_modules(model)}")

    def keep(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        rows = logits(output)
        found[name].append(rows.reshape(-1, rows.shape[-1]))

    hooks = [model.get_submodule(name).register_forward_hook(partial(keep, name)) for name in found]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _named(params: Params, router: str, tensor: str) -> str:
    name = ".".join(filter(None, (router.rpartition(".")[0], tensor)))
    if name not in params:
        raise ValueError(f"there is no tensor {name!r}; beside {router!r} are {_beside(params, router)}")
    return name


def _beside(params: Params, router: str) -> str:
    place = router.rpartition(".")[0]
    return ", ".join(name for name in params if name.startswith(place))


def _modules(model: nn.Module) -> str:
    return ", ".join(name for name, _ in model.named_modules() if name)[:200]
