"""Which batch norm stands right behind which layer, from the network's graph."""

from __future__ import annotations

from collections import Counter

from torch import fx, nn

LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""No linear layers: on inputs with more than two axes a batch norm's channels are another axis than theirs."""
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def norms_behind(model: nn.Module) -> dict[str, str]:
    """Layers by name, each with the batch norm that alone reads its output and can be folded into its scale.

    Empty where the network cannot be traced: control flow that looks at values, or modules torch.fx does not know.
    """
    try:
        graph = fx.symbolic_trace(model).graph
    except Exception:  # whatever a network's code does with a symbol in place of a tensor
        return {}
    modules = dict(model.named_modules(remove_duplicate=False))
    calls = Counter(id(modules[str(node.target)]) for node in graph.nodes if node.op == "call_module")
    places = Counter(map(id, modules.values()))
    found = {}
    for node in graph.nodes:
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        layer, norm = modules[str(before.target)], modules[str(node.target)]
        once = all(calls[id(module)] == places[id(module)] == 1 for module in (layer, norm))
        if once and type(layer) in LAYERS and _fixed(norm):
            found[str(before.target)] = str(node.target)
    return found


def _fixed(norm: nn.Module) -> bool:
    """A batch norm that uses its running statistics, and that nobody listens to."""
    plain = type(norm) in NORMS and norm.running_mean is not None
    return plain and not (norm._forward_hooks or norm._forward_pre_hooks)
