"""What a network's graph tells: which batch norm stands right behind which layer, which sum or ReLU alone reads it."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""No linear layers: on inputs with more than two axes a batch norm's channels are another axis than theirs."""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
FRESH = (*LAYERS, *NORMS, nn.Linear)
"""What they give, like a sum, is a tensor of its own, that nobody else holds."""
SUMS = (operator.add, torch.add)


@dataclass(frozen=True)
class Graph:
    """`norms`: layers by name, each with the batch norm that can go into its scale; `relus` that may work in place;
    `sums`: layers that a sum of two alone reads, or alone reads their norm; `ends`: layers by name, each with the ReLU
    that alone reads it, its norm or its sum.

    All are empty where the network cannot be traced: control flow that looks at values, or code unknown to torch.fx.
    """

    norms: dict[str, str] = field(default_factory=dict)
    relus: tuple[str, ...] = ()
    sums: frozenset[str] = frozenset()
    ends: dict[str, str] = field(default_factory=dict)


def graph_of(model: nn.Module) -> Graph:
    """What may be changed of a network in evaluation mode without changing what it gives, but for rounding."""
    try:
        nodes = list(_Tracer().trace(model).nodes)
    except Exception:  # whatever a network's code does with a symbol in place of a tensor
        return Graph()
    modules = dict(model.named_modules(remove_duplicate=False))
    once = _once(nodes, modules)
    norms, relus, ends = {}, [], {}
    layer_of = {
        node: str(node.target) for node in nodes if once(node) and type(modules.get(str(node.target))) in LAYERS
    }
    summed = set()
    for node in nodes:
        if (owner := _owner(node, layer_of)) is not None:
            layer_of[node] = owner
            summed.add(owner)
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not (isinstance(before, fx.Node) and len(before.users) == 1 and once(before) and once(node)):
            continue
        own, other, layer = modules[str(node.target)], modules.get(str(before.target)), layer_of.get(before)
        if type(own) in NORMS and getattr(own, "running_mean", None) is not None and type(other) in LAYERS:
            norms[str(before.target)], layer_of[node] = str(node.target), str(before.target)
        if type(own) is nn.ReLU and (type(other) in FRESH or before.target in SUMS or _kept(before, modules)):
            relus.append(str(node.target))
            if layer is not None:
                ends[layer] = str(node.target)
    return Graph(norms, tuple(relus), frozenset(summed), ends)


class _Added(fx.Proxy):
    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


class _Tracer(fx.Tracer):
    """Tells `y += x` from `y = y + x`, as torch's own does not: the first writes into a tensor that others may hold."""

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Added(node, self)


def _kept(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    """Whether a node adds in place to what a layer gives, where nothing else reads that."""
    one = node.args[0] if node.target is operator.iadd else None
    own = modules.get(str(one.target)) if isinstance(one, fx.Node) and one.op == "call_module" else None
    return isinstance(one, fx.Node) and type(own) in FRESH and len(one.users) == 1


def _owner(node: fx.Node, layer_of: dict[fx.Node, str]) -> str | None:
    """The layer that a sum of two can go into: nothing else reads it, and what is added to in place is its own."""
    if node.op != "call_function" or node.target not in (*SUMS, operator.iadd) or node.kwargs or len(node.args) != 2:
        return None
    for term in node.args[: 1 if node.target is operator.iadd else 2]:
        if isinstance(term, fx.Node) and len(term.users) == 1 and term.op == "call_module" and term in layer_of:
            return layer_of[term] if node.args[0] is not node.args[1] else None
    return None


def _once(nodes: list[fx.Node], modules: dict[str, nn.Module]) -> Callable[[fx.Node], bool]:
    """Whether a node is a function, or a module that is called once, stands in one place, and has nobody listening."""
    calls = Counter(id(modules[str(node.target)]) for node in nodes if node.op == "call_module")
    places = Counter(map(id, modules.values()))

    def once(node: fx.Node) -> bool:
        if node.op != "call_module":
            return node.op == "call_function"
        module = modules[str(node.target)]
        heard = module._forward_hooks or module._forward_pre_hooks
        return calls[id(module)] == places[id(module)] == 1 and not heard

    return once
