"""What a network's graph tells: which batch norm stands right behind which layer, which ReLU alone reads its input."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Iterator
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
    `ends`: layers by name, each with the ReLU that alone reads it, or alone reads its norm.

    All are empty where the network cannot be traced: control flow that looks at values, or code unknown to torch.fx.
    """

    norms: dict[str, str]
    relus: tuple[str, ...] = ()
    ends: dict[str, str] = field(default_factory=dict)


def graph_of(model: nn.Module) -> Graph:
    """What may be changed of a network in evaluation mode without changing what it gives, but for rounding."""
    try:
        nodes = list(_Tracer().trace(model).nodes)
    except Exception:  # whatever a network's code does with a symbol in place of a tensor
        return Graph({})
    modules = dict(model.named_modules(remove_duplicate=False))
    norms, behind, relus, ends = {}, {}, [], {}
    for name, before in _chains(nodes, modules):
        own, other = modules[name], modules.get(str(before.target)) if before.op == "call_module" else None
        if type(own) in NORMS and getattr(own, "running_mean", None) is not None and type(other) in LAYERS:
            norms[str(before.target)], behind[name] = name, str(before.target)
        if type(own) is nn.ReLU and (type(other) in FRESH or before.target in SUMS or _kept(before, modules)):
            relus.append(name)
            layer = behind.get(str(before.target), str(before.target))
            if type(modules.get(layer)) in LAYERS:
                ends[layer] = name
    return Graph(norms, tuple(relus), ends)


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


def _chains(nodes: list[fx.Node], modules: dict[str, nn.Module]) -> Iterator[tuple[str, fx.Node]]:
    """Modules by name with the node before each, where both are called once and nothing else reads what is between."""
    calls = Counter(id(modules[str(node.target)]) for node in nodes if node.op == "call_module")
    places = Counter(map(id, modules.values()))

    def once(node: fx.Node) -> bool:
        if node.op != "call_module":
            return node.op == "call_function"
        module = modules[str(node.target)]
        heard = module._forward_hooks or module._forward_pre_hooks
        return calls[id(module)] == places[id(module)] == 1 and not heard

    for node in nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if isinstance(before, fx.Node) and len(before.users) == 1 and once(before) and once(node):
            yield str(node.target), before
