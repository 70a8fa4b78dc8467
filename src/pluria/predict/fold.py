"""What a network's graph tells: which batch norm stands right behind which layer, which sum or ReLU alone reads it."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import fx, nn

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""No linear layers: on inputs with more than two axes a batch norm's channels are another axis than theirs."""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
FRESH = (*LAYERS, *NORMS, nn.Linear)
"""What they give, like a sum, is a tensor of its own, that nobody else holds."""
SUMS = (operator.add, torch.add)
RELUS = (F.relu, torch.relu, "relu", "relu_")

Ending = tuple[Literal["sum", "relu"], ...]
"""What is called with a layer's output, in order, where nothing else reads it before that."""


@dataclass(frozen=True)
class Graph:
    """`norms`: layers by name, each with the batch norm that can go into its scale; `relus` that may work in place;
    `endings`: layers by name, each with what stands behind it and its norm.

    All are empty where the network cannot be traced: control flow that looks at values, or code unknown to torch.fx.
    """

    norms: dict[str, str] = field(default_factory=dict)
    relus: tuple[str, ...] = ()
    endings: dict[str, Ending] = field(default_factory=dict)


def graph_of(model: nn.Module) -> Graph:
    """What may be changed of a network in evaluation mode without changing what it gives, but for rounding."""
    try:
        nodes = list(_Tracer().trace(model).nodes)
    except Exception:  # whatever a network's code does with a symbol in place of a tensor
        return Graph()
    modules = dict(model.named_modules(remove_duplicate=False))
    once = _once(nodes, modules)
    ends = {str(n.target): n for n in nodes if once(n) and type(modules.get(str(n.target))) in LAYERS}
    norms, relus = {}, []
    for node in nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not (isinstance(before, fx.Node) and len(before.users) == 1 and once(before) and once(node)):
            continue
        name, own, other = str(node.target), modules[str(node.target)], modules.get(str(before.target))
        if type(own) in NORMS and getattr(own, "running_mean", None) is not None and type(other) in LAYERS:
            norms[str(before.target)], ends[str(before.target)] = name, node
        if type(own) is nn.ReLU and (type(other) in FRESH or before.target in SUMS or _kept(before, modules)):
            relus.append(name)
    endings = {name: ending for name, node in ends.items() if (ending := _ending(node, modules))}
    # Somebody who listens inside may keep what goes from one module to another.
    heard = any(_heard(module) for module in model.modules() if module is not model)
    return Graph(norms, tuple(relus), {} if heard else endings)


def _ending(node: fx.Node, modules: dict[str, nn.Module]) -> Ending:
    """The sum of two and the ReLU behind a node, as far as each alone reads what is before it."""
    reader, found = _reader(node), []
    if reader is not None and reader.target in (*SUMS, operator.iadd) and not reader.kwargs and len(reader.args) == 2:
        one, other = reader.args
        # What is added to in place may be held by others.
        if one is not other and (one is node or reader.target is not operator.iadd):
            found.append("sum")
            node, reader = reader, _reader(reader)
    if reader is not None and reader.args and reader.args[0] is node:
        module = modules[str(reader.target)] if reader.op == "call_module" else None
        if reader.target in RELUS if module is None else type(module) is nn.ReLU:
            found.append("relu")
    return tuple(found)  # type: ignore[arg-type]


def _reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _heard(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


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


def _once(nodes: list[fx.Node], modules: dict[str, nn.Module]) -> Callable[[fx.Node], bool]:
    """Whether a node is a function, or a module that is called once, stands in one place, and has nobody listening."""
    calls = Counter(id(modules[str(node.target)]) for node in nodes if node.op == "call_module")
    places = Counter(map(id, modules.values()))

    def once(node: fx.Node) -> bool:
        if node.op != "call_module":
            return node.op == "call_function"
        module = modules[str(node.target)]
        return calls[id(module)] == places[id(module)] == 1 and not _heard(module)

    return once
