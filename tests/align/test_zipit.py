"""ZipIt: a network with itself is itself, without repeats it is matching, and tensors are what matrices give."""

from __future__ import annotations

import pytest
import torch

from align.networks import KINDS, images, made, shuffled
from core.laws import same_bits
from pluria.align import infer_groups, permuted, zipit
from pluria.align.zipit import cluster
from pluria.core.ensemble import single, stack
from pluria.core.params import params_of

PLAIN = ["mlp", "vgg", "resnet", "vit"]


@pytest.mark.parametrize("members", [1, 2, 3])
@pytest.mark.parametrize("kind", PLAIN)
def test_a_network_with_itself_is_itself(kind: str, members: int) -> None:
    model, x = made(kind), KINDS[kind][1]
    params = params_of(model)
    # A merged place is less like a third copy unless alpha is one.
    zipped = zipit(model, stack([params] * members), [x], alpha=0.3 if members < 3 else 1.0)
    close = same_bits if members < 3 else lambda one, other: torch.allclose(one, other, rtol=1e-6)
    assert list(zipped) == list(params)
    assert all(close(zipped[name], params[name]) for name in params)


@pytest.mark.parametrize("kind", ["mlp", "vgg"])
def test_without_repeats_it_is_matching(kind: str) -> None:
    model, x = made(kind), torch.cat([KINDS[kind][1], images(400) * 2])
    params, groups = params_of(model), infer_groups(model, x[:2])
    copy = permuted(params, groups, shuffled(groups))
    zipped = zipit(model, stack([params, copy]), [x[:200], x[200:]], alpha=0.0, beta=0.0)
    assert all(same_bits(zipped[name], params[name]) for name in params)


def test_clusters_by_hand() -> None:
    likeness = torch.eye(4).double()
    for i, j, value in [(0, 1, 0.9), (2, 3, 0.8), (0, 2, 0.3), (1, 3, 0.4), (0, 3, 0.1), (1, 2, 0.2)]:
        likeness[i, j] = likeness[j, i] = value
    # Across only: 1 meets 3, then 0 meets 2. Within: 0 and 1 are the most alike, then 2 and 3.
    assert cluster(likeness, 2, 0.0, 0.0).tolist() == [0, 1, 0, 1]
    assert cluster(likeness, 2, 0.0, 0.5).tolist() == [0, 0, 1, 1]


def test_the_budget_within_a_member_is_kept() -> None:
    likeness = torch.corrcoef(torch.randn(24, 40, generator=torch.Generator().manual_seed(0)).double())
    most = []
    for beta in (0.0, 0.25, 1.0):
        label = cluster(likeness, 2, 0.0, beta)
        assert sorted(set(label.tolist())) == list(range(12))
        within = [12 - len(set(half.tolist())) for half in label.split(12)]
        assert max(within) <= 12 * beta
        most.append(sum(within))
    assert most[0] == 0
    assert 0 < most[1] <= most[2]


def test_tensors_are_products_with_the_merge_and_its_inverse() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)).eval()
    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))
    several = [{n: torch.randn_like(v) for n, v in params_of(model).items()} for _ in range(2)]
    zipped = zipit(model, stack(several), [x], alpha=0.5, beta=0.5)
    hidden = torch.cat([(x @ p["0.weight"].T + p["0.bias"]).relu() for p in several], 1).double()
    likeness = torch.nan_to_num(torch.corrcoef(hidden.T))
    label = cluster(likeness, 2, 0.5, 0.5)
    hot = torch.nn.functional.one_hot(label, 4).double()
    merge, back = (hot / hot.sum(0)).T, hot
    first = torch.cat([p["0.weight"] for p in several]).double()
    last = torch.cat([p["2.weight"] for p in several], 1).double() / 2
    assert torch.allclose(zipped["0.weight"].double(), merge @ first, atol=1e-6)
    assert torch.allclose(zipped["2.weight"].double(), last @ back, atol=1e-6)
    assert torch.allclose(zipped["2.bias"], (several[0]["2.bias"] + several[1]["2.bias"]) / 2, atol=1e-6)


def test_mistakes_are_told() -> None:
    model = made("mlp")
    with pytest.raises(ValueError, match=r"alpha and beta lie in 0\.\.1; got 2 and 0\.125"):
        zipit(model, single(params_of(model)), [images()], alpha=2)
    with pytest.raises(ValueError, match="no inputs to correlate"):
        zipit(model, single(params_of(model)), [])
    linear = torch.nn.Linear(64, 3)
    with pytest.raises(ValueError, match="no axis of this model may be zipped"):
        zipit(linear, single(params_of(linear)), [torch.randn(4, 64)])
