"""Packed ensembles: M narrow networks trained side by side for about the price of one wide one.

    a hidden width c becomes alpha c / M, and convolutions in hidden places get gamma groups
    parameters: about alpha^2 / (M gamma) of the network's for each member, alpha^2 / gamma for all

Each member is a network of its own, so the population's network is the narrow one. It changes the function by design.

Source: Laurent et al., "Packed-Ensembles for Efficient Uncertainty Estimation", ICLR 2023.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from pluria.core.model import tensors, ties
from pluria.numbers.key import Key
from pluria.train.factors import weights_of
from pluria.train.fresh import restarted
from pluria.train.population import OwnPart, Part, Population, check_members

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.GroupNorm, nn.LayerNorm)


def packed_ensemble(
    model: nn.Module, *, members: int = 4, alpha: float = 2.0, gamma: int = 1, key: Key | int = 0
) -> Population:
    """A population of freshly initialised narrow copies of `model`; what it has learned is not used.

    Widths of hidden linear and convolutional layers and of batch norms are changed; the first layer reads, and the last
    gives, what the network's do. Raises ValueError, naming the layer, where a width is not divided, for norms and
    layers whose width is not known here, and for parameters that are frozen or tied.
    """
    check_members(members)
    _refuse_frozen_and_tied(model)
    key = key if isinstance(key, Key) else Key(key)
    narrow = copy.deepcopy(model)
    names = [name.removesuffix(".weight") for name in weights_of(model, "a packed ensemble")]
    for name, module in narrow.named_modules():
        if name in names:
            first, last = name == names[0], name == names[-1]
            _narrow(name, module, alpha / members, 1 if first or last else gamma, first=first, last=last)
        elif isinstance(module, NORMS):
            _narrow_norm(name, module, alpha / members)
    starts = [restarted(narrow, key.fold(f"member {member}")) for member in range(members)]
    parts: dict[str, Part] = {
        name: OwnPart(value, members, torch.stack([tensors(start)[name].detach() for start in starts]))
        for name, value in tensors(starts[0]).items()
    }
    return Population(starts[0], members=members, parts=parts)


def _refuse_frozen_and_tied(model: nn.Module) -> None:
    """Every layer begins anew with tensors of its own, so that neither could be kept."""
    own = dict(model.named_parameters(remove_duplicate=False))
    if frozen := [name for name, value in own.items() if not value.requires_grad]:
        raise ValueError(
            f"a packed ensemble begins anew and keeps nothing, but these are frozen: {', '.join(frozen[:5])}"
        )
    if tied := [f"{name} to {first}" for name, first in ties(model).items() if name in own and name != first]:
        raise ValueError(f"a packed ensemble narrows each layer by itself, but these are tied: {', '.join(tied[:5])}")


def _narrow(name: str, module: nn.Module, share: float, groups: int, *, first: bool, last: bool) -> None:
    """Change a layer's widths; its tensors are made anew."""
    if isinstance(module, nn.Linear):
        module.in_features = module.in_features if first else _width(name, module.in_features, share, 1)
        module.out_features = module.out_features if last else _width(name, module.out_features, share, 1)
        shape: tuple[int, ...] = (module.out_features, module.in_features)
        size = module.out_features
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.groups == 1:
        module.in_channels = module.in_channels if first else _width(name, module.in_channels, share, groups)
        module.out_channels = module.out_channels if last else _width(name, module.out_channels, share, groups)
        module.groups = groups
        shape = (module.out_channels, module.in_channels // groups, *module.kernel_size)
        size = module.out_channels
    else:
        raise ValueError(f"{name} is a {type(module).__name__}; only Linear and plain convolutions are narrowed")
    module.weight = nn.Parameter(module.weight.new_empty(shape))
    if module.bias is not None:
        module.bias = nn.Parameter(module.bias.new_empty(size))


def _narrow_norm(name: str, module: nn.Module, share: float) -> None:
    if not isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        raise ValueError(f"{name} is a {type(module).__name__}; a packed ensemble narrows batch norms alone")
    module.num_features = _width(name, module.num_features, share, 1)
    for own, value in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
        if value.ndim:
            fresh = value.detach().new_empty(module.num_features)
            setattr(module, own, nn.Parameter(fresh) if isinstance(value, nn.Parameter) else fresh)


def _width(name: str, width: int, share: float, groups: int) -> int:
    narrow = width * share
    if narrow < 1 or narrow != int(narrow) or int(narrow) % groups:
        raise ValueError(
            f"{name}: a width of {width} times {share:g} is {narrow:g}, which is no whole number of {groups} groups; "
            "take another alpha, gamma or number of members"
        )
    return int(narrow)
