"""Members are brought to one of them: a permuted copy exactly, another network nearer, and functions stay."""

from __future__ import annotations

import itertools
import math
import sys
from typing import Any

import pytest
import torch
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from align.networks import KINDS, answers, images, made, shuffled
from core.laws import same_bits
from pluria.align import Groups, infer_groups, permuted, rebasin
from pluria.core.ensemble import single, stack
from pluria.core.errors import CheckpointError
from pluria.core.params import Params, params_of
from pluria.merge import leafwise, linear
from pluria.zoo import network, read
from pluria.zoo.fit import fit


def products(one: Params, other: Params) -> float:
    return sum(float((one[n].double() * other[n].double()).sum()) for n in one if one[n].is_floating_point())


@pytest.mark.parametrize("kind", KINDS)
def test_a_permuted_copy_is_recovered_exactly(kind: str) -> None:
    model, x = made(kind), KINDS[kind][1]
    params = params_of(model)
    groups = infer_groups(model, x[:2])
    several = stack([params, *(permuted(params, groups, shuffled(groups, seed)) for seed in (1, 2))])
    aligned = rebasin(model, several, [x])
    for member in aligned.members:
        assert all(same_bits(aligned.params(member)[name], params[name]) for name in params)


@pytest.mark.parametrize("kind", ["mlp", "vgg", "vit"])
def test_a_permuted_copy_is_recovered_from_its_activations(kind: str) -> None:
    model, x = made(kind), torch.cat([KINDS[kind][1], torch.randn(240, *KINDS[kind][1].shape[1:])])
    params, groups = params_of(model), infer_groups(model, x[:2])
    several = stack([params, permuted(params, groups, shuffled(groups))])
    # The last batch is smaller than the one that was traced.
    aligned = rebasin(model, several, [x[:100], x[100:]], by="activations")
    assert all(same_bits(aligned.params(1)[name], params[name]) for name in params)


def seeds(kind: str) -> list[Any]:
    """Three for each kind; those of a convolution beyond the first take long."""
    marks = [pytest.mark.study] if kind == "small_cnn" else []
    return [pytest.param(kind, seed, marks=marks if seed else []) for seed in range(3)]


@pytest.mark.parametrize(("kind", "seed"), [*seeds("mlp"), *seeds("small_cnn")])
def test_the_midpoint_of_trained_networks_is_no_worse_than_without(kind: str, seed: int) -> None:
    train, held = read("digits", split="train"), read("digits", split="test").batches(500)
    sizes: dict[str, Any] = {"inputs": 64, "classes": 10} if kind == "mlp" else {"norm": "none"}
    starts = [network(kind, seed=2 * seed + k, **sizes) for k in range(2)]
    pair = [fit(start, train, epochs=10, batch=50, rate=0.003, seed=k) for k, start in enumerate(starts)]
    several = stack([params_of(model) for model in pair])
    aligned = rebasin(pair[0], several, [next(iter(held))[0][:2]], by="weights")

    def loss(params: Params) -> float:
        with torch.no_grad():
            parts = [cross_entropy(functional_call(pair[0], dict(params), x), y, reduction="sum") for x, y in held]
        return float(sum(parts)) / sum(len(y) for _, y in held)

    naive, matched, own = (loss(leafwise(e, linear())) for e in (several, aligned, several.take([0])))
    print(f"{kind}, seed {seed}: loss of a network {own:.3f}, of the midpoint {naive:.3f}, matched {matched:.3f}")
    assert own < matched <= naive


@pytest.mark.parametrize("by", ["weights", "activations"])
@pytest.mark.parametrize("kind", KINDS)
def test_functions_stay_and_members_come_nearer(kind: str, by: str) -> None:
    model, x = made(kind), KINDS[kind][1]
    several = stack([params_of(made(kind, seed)) for seed in range(3)])
    aligned = rebasin(model, several, [x], reference=1, by=by)  # type: ignore[arg-type]
    for member in several.members:
        before, after = several.params(member), aligned.params(member)
        one, other = answers(model, before, x), answers(model, after, x)
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()))
        learned = [name for name, _ in model.named_parameters()]
        target = {name: several.params(1)[name] for name in learned}
        if by == "weights":
            assert products(target, {n: after[n] for n in learned}) >= products(target, {n: before[n] for n in learned})
        assert all(same_bits(after[name], before[name]) for name in before) == (member == 1)


def test_one_layer_is_matched_as_well_as_by_trying_all() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    one, other = params_of(model), {n: torch.randn_like(v) for n, v in params_of(model).items()}
    aligned = rebasin(model, stack([one, other]), [torch.randn(2, 3)]).params(1)
    groups = infer_groups(model, torch.randn(1, 3))
    every = (permuted(other, groups, {"0.out": torch.tensor(p)}) for p in itertools.permutations(range(4)))
    assert math.isclose(products(one, aligned), max(products(one, tried) for tried in every), rel_tol=1e-6)


def test_heads_are_matched_by_what_lies_within_them() -> None:
    model = made("torch_attention")
    params, groups = params_of(model), infer_groups(made("torch_attention"), images(1))
    (values, heads), *_ = groups.within.items()
    places = groups.identity() | {heads: torch.tensor([2, 0, 1]), values: shuffled(groups)[values]}
    aligned = rebasin(model, stack([params, permuted(params, groups, places)]), [images()]).params(1)
    assert all(same_bits(aligned[name], params[name]) for name in params)


def test_a_table_by_hand_does_what_the_inferred_one_does() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))
    table = Groups({"0.weight": ("h", "3"), "0.bias": ("h",), "2.weight": ("2", "h")}, {"h": 4})
    several = stack([params_of(model), {n: torch.randn_like(v) for n, v in params_of(model).items()}])
    written, inferred = rebasin(model, several, groups=table), rebasin(model, several, [torch.randn(2, 3)])
    assert all(same_bits(written.params(1)[name], value) for name, value in inferred.params(1).items())


def test_running_statistics_move_with_their_channels_and_are_not_compared() -> None:
    model = made("vgg")
    params = params_of(model)
    other = {n: v * 1000 if "running_mean" in n else v for n, v in params_of(made("vgg", 1)).items()}
    plain = rebasin(model, stack([params, params_of(made("vgg", 1))]), [images()]).params(1)
    loud = rebasin(model, stack([params, other]), [images()]).params(1)
    assert all(torch.equal(loud[n], plain[n] * 1000 if "running_mean" in n else plain[n]) for n in params)


def test_a_wrong_table_is_found_out() -> None:
    model = made("sorted")
    table = Groups({"first.weight": ("h", "64"), "first.bias": ("h",), "second.weight": ("5", "h")}, {"h": 7})
    several = stack([params_of(model), params_of(made("sorted", 1))])
    with pytest.raises(ValueError, match="so the groups are wrong"):
        rebasin(model, several, [images()], groups=table)


def test_the_order_of_groups_has_an_address() -> None:
    model, x = made("resnet"), images(channels=3, size=16)
    several = stack([params_of(made("resnet", seed)) for seed in range(2)])
    one, again, other = (rebasin(model, several, [x], key=key).params(1) for key in (0, 0, 1))
    assert all(same_bits(one[name], again[name]) for name in one)
    assert not all(same_bits(one[name], other[name]) for name in one)


def test_without_scipy_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    model = made("mlp")
    with pytest.raises(ImportError, match=r"pip install 'pluria\[align\]'"):
        rebasin(model, single(params_of(model)), [images()])


def test_mistakes_are_told() -> None:
    model = made("mlp")
    ensemble = single(params_of(model))
    table = Groups({"linear1.weight": ("h", "64")}, {"h": 63})
    with pytest.raises(ValueError, match=r"has shape \(64, 64\); its axes \('h', '64'\) make \(63, 64\)"):
        rebasin(model, ensemble, groups=table)
    with pytest.raises(ValueError, match="the table has a tensor 'no' that the network lacks"):
        rebasin(model, ensemble, groups=Groups({"no": ("h",)}, {"h": 63}))
    with pytest.raises(ValueError, match="there is no group 'g'; there are h"):
        Groups({"w": ("g",)}, {"h": 3})
    with pytest.raises(ValueError, match=r"'d' is within 'h', so it is written behind it, 'h\*d'; got 'd\*h'"):
        Groups({"w": ("d*h",)}, {"h": 3, "d": 2}, {"d": "h"})
    with pytest.raises(ValueError, match="give `inputs`, a list of one batch or more"):
        rebasin(model, ensemble)
    with pytest.raises(TypeError, match="Write \\[inputs\\]"):
        rebasin(model, ensemble, images())
    with pytest.raises(ValueError, match=r"a position in 0\.\.0, or params; got 1"):
        rebasin(model, ensemble, [images()], reference=1)
    with pytest.raises(ValueError, match="by 'weights' or by 'activations'; got 'both'"):
        rebasin(model, ensemble, [images()], by="both")  # type: ignore[arg-type]
    linear = torch.nn.Linear(4, 3)
    with pytest.raises(ValueError, match="no axis of this model may be permuted"):
        rebasin(linear, single(params_of(linear)), [torch.randn(2, 4)])
    with pytest.raises(CheckpointError, match="the reference does not fit the network"):
        rebasin(model, ensemble, [images()], reference={"w": torch.zeros(2)})
