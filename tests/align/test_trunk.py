"""Partial ZipIt: a shared trunk under heads of one's own computes what the members do, where they are alike below."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call

from align.networks import KINDS, images, made, shuffled
from pluria.align import infer_groups, permuted, zip_trunk, zipit
from pluria.core.ensemble import stack
from pluria.core.family import Shared
from pluria.core.params import Params, params_of

OWN = {"mlp": ["head.*"], "vgg": ["head.*"], "resnet": ["linear.*"], "vit": ["head.*"]}
HEADS = ("head.", "linear.")


def heads(params: Params) -> list[Params]:
    """Two networks with one trunk and different heads."""
    draw = torch.Generator().manual_seed(5)
    other = {n: torch.randn(v.shape, generator=draw) if n.startswith(HEADS) else v for n, v in params.items()}
    return [params, other]


@pytest.mark.parametrize("kind", OWN)
def test_members_that_differ_in_their_heads_alone_stay_what_they_are(kind: str) -> None:
    model, x = made(kind), KINDS[kind][1]
    members = heads(params_of(model))
    zipped = zip_trunk(model, stack(members), [x], own=OWN[kind])
    for before, after in zip(members, zipped, strict=True):
        one, other = (functional_call(model, dict(params), (x,)) for params in (before, after))
        assert torch.allclose(one, other, atol=1e-5)
    assert {name for name, family in zipped.families.items() if not isinstance(family, Shared)} == {
        name for name in members[0] if name.startswith(HEADS)
    }


@pytest.mark.parametrize("kind", ["mlp", "vgg"])
def test_a_permuted_trunk_is_copied_back_for_its_head(kind: str) -> None:
    model, x = made(kind), torch.cat([KINDS[kind][1], images(400) * 2])
    first, second = heads(params_of(model))
    groups = infer_groups(model, x[:2])
    copy = permuted(second, groups, shuffled(groups))
    zipped = zip_trunk(model, stack([first, copy]), [x[:200], x[200:]], own=OWN[kind], alpha=0.0, beta=0.0)
    for before, after in zip((first, second), zipped, strict=True):
        one, other = (functional_call(model, dict(params), (x,)) for params in (before, after))
        assert torch.allclose(one, other, atol=1e-4)


def test_the_trunk_is_that_of_a_whole_zip() -> None:
    model, x = made("mlp"), KINDS["mlp"][1]
    pair = stack([params_of(model), params_of(made("mlp", seed=4))])
    part, whole = zip_trunk(model, pair, [x], own=["head.*"]), zipit(model, pair, [x])
    for name in whole:
        if not name.startswith("head"):
            assert torch.equal(part.params(0)[name], whole[name])
            assert torch.equal(part.params(1)[name], whole[name])
    mean = (part.params(0)["head.weight"].double() + part.params(1)["head.weight"].double()) / 2
    assert torch.allclose(mean.float(), whole["head.weight"])


def test_where_it_may_not_stop() -> None:
    model, x = made("resnet"), KINDS["resnet"][1]
    pair = stack([params_of(model)] * 2)
    names = list(pair.families)
    with pytest.raises(ValueError, match=r"own=\['tail'\] names 0 of"):
        zip_trunk(model, pair, [x], own=["tail"])
    with pytest.raises(ValueError, match=f"names {len(names)} of {len(names)} tensors"):
        zip_trunk(model, pair, [x], own=["*"])
    stream = next(name for name in names if name.endswith("conv2.weight"))
    with pytest.raises(ValueError, match="let both stay, or neither"):
        zip_trunk(model, pair, [x], own=[stream])
