"""Low-precision ensembles of models, of params and of other ensembles."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pluria.core.ensemble import Ensemble, join, single, stack
from pluria.core.errors import CheckpointError
from pluria.sample import gaussian, left_alone, low_precision, nearest
from sample.networks import ROUNDED, differ, family, params, small


def test_model_and_params_give_the_same_members() -> None:
    net = small()
    one, other = low_precision(net, members=3), low_precision(net.state_dict(), members=3)
    assert not any(differ(a, b) for a, b in zip(one, other, strict=True))
    last = low_precision(small().to(memory_format=torch.channels_last), members=3)
    assert not any(differ(a, b) for a, b in zip(one, last, strict=True))


def test_parameters_that_ask_for_gradients() -> None:
    ensemble = low_precision(dict(small().named_parameters()), members=2)
    assert not any(value.requires_grad for value in ensemble.params(1).values())


def test_training_afterwards_does_not_change_the_ensemble() -> None:
    net = small()
    ensemble = low_precision(net, members=2)
    before = ensemble.params(1)
    with torch.no_grad():
        for value in net.parameters():
            value.add_(1)
    assert not differ(before, ensemble.params(1))
    assert not differ(before, low_precision(small(), members=2).params(1))


def test_params_are_copied() -> None:
    net = small()
    ensemble = low_precision(net.state_dict(), members=2)
    before = ensemble.params(1)
    with torch.no_grad():
        net[0].weight.add_(1)
    assert not differ(before, ensemble.params(1))


@pytest.mark.parametrize("source", ["model.pt", Path("model.safetensors"), None, 3])
def test_another_source_is_refused(source: object) -> None:
    with pytest.raises(TypeError, match=r"got \w+\. .*`pluria.read_checkpoint\(path\).params`"):
        low_precision(source)  # type: ignore[arg-type]


def test_a_whole_training_state_is_refused() -> None:
    with pytest.raises(TypeError, match=r"'epoch' is int\. Give the state dict alone"):
        low_precision({"fc.weight": torch.ones(2, 2), "epoch": 3})  # type: ignore[dict-item]


def test_each_base_in_turn() -> None:
    bases = [params(seed) for seed in range(3)]
    ensemble = low_precision(stack(bases), format="int8", members=8)
    for member, made in enumerate(ensemble):
        base = bases[member % 3]
        assert differ(made, base) == list(ROUNDED)
        for name in ROUNDED:
            step = base[name].abs().flatten(1).amax(dim=1) / 127
            gap = (made[name] - base[name]).abs().flatten(1).amax(dim=1)
            assert (gap <= step * 1.001).all()
    assert not differ(ensemble.params(1), low_precision(stack(bases), format="int8", members=2).params(1))


def test_bases_keep_their_numbers() -> None:
    bases = [params(seed) for seed in range(3)]
    ensemble = low_precision(stack(bases).take([2, 0]), format="int8", members=5)
    found = [[torch.equal(made["5.bias"], base["5.bias"]) for base in bases].index(True) for made in ensemble]
    assert found == [2, 0, 2, 0, 2]
    assert family(ensemble, "0.weight").bases == (2, 0)


def test_draws_have_the_weights_of_their_bases() -> None:
    weighted = stack([params(0), params(1)]).reweight(torch.tensor([3.0, 1.0]))
    assert low_precision(weighted, members=4).weights.tolist() == [0.375, 0.125, 0.375, 0.125]
    assert nearest(weighted).weights.tolist() == [0.75, 0.25]
    assert low_precision(stack([params(0), params(1)]), members=3).weights.tolist() == pytest.approx([1 / 3] * 3)


def test_bases_by_chance() -> None:
    around = gaussian(low_precision(params(0), format="int4"), key=1).take([3, 6])
    ensemble = low_precision(around, format="int8", members=4)
    for member, made in enumerate(ensemble):
        base = around.params((3, 6)[member % 2])
        assert differ(made, base) == list(ROUNDED)
        gap = (made["5.weight"] - base["5.weight"]).abs().amax(dim=1)
        assert (gap <= base["5.weight"].abs().amax(dim=1) / 127 * 1.001).all()
    assert differ(ensemble.params(0), ensemble.params(1)) == list(ROUNDED)


def test_a_union_can_be_rounded() -> None:
    both = join(single(params(0)), single(params(1)))
    ensemble = low_precision(both, format="int8", members=2)
    assert torch.equal(ensemble.params(1)["5.bias"], params(1)["5.bias"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["0.weight", "5.bias", "1.running_var"])
def test_values_that_are_not_finite_are_refused(bad: float, name: str) -> None:
    values = params(0)
    values[name].view(-1)[0] = bad
    with pytest.raises(CheckpointError, match=rf"the checkpoint: 1 not finite \({name}\)"):
        low_precision(values)
    with pytest.raises(CheckpointError, match=rf"member 1 of the ensemble: 1 not finite \({name}\)"):
        low_precision(stack([params(1), values]))


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.float8_e4m3fn, torch.float8_e5m2])
def test_quantised_checkpoints_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(CheckpointError, match=f"'fc.weight' holds {dtype}: this checkpoint is quantised already"):
        low_precision({"fc.weight": torch.ones(4, 4).to(dtype)})


WHERE = (["*"], ["*", "!fc.bias"], lambda name, role: True)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.bool])
@pytest.mark.parametrize("where", WHERE)
def test_integers_that_a_pattern_fits_are_passed_over(where: object, dtype: torch.dtype) -> None:
    values = {"fc.weight": torch.ones(2, 2), "positions": torch.ones(1, 4).to(dtype)}
    ensemble = low_precision({**values, "fc.bias": torch.ones(2)}, where=where)
    assert torch.equal(ensemble.params(1)["positions"], values["positions"])


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_codes_that_a_pattern_fits_are_refused(dtype: torch.dtype) -> None:
    values = {"fc.weight": torch.ones(2, 2), "codes": torch.ones(2, 2).to(dtype)}
    with pytest.raises(CheckpointError, match="'codes' holds"):
        low_precision(values, where=["*"])
    assert "codes" in left_alone(low_precision(values))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


def test_tied_tensors_are_rounded_once_under_their_first_name() -> None:
    for source in (Tied(), Tied().state_dict()):
        ensemble = low_precision(source, members=2)
        check_tied(ensemble)


def check_tied(ensemble: Ensemble) -> None:
    assert ensemble.families["embed.weight"] is ensemble.families["head.weight"]
    assert family(ensemble, "head.weight").name == "embed.weight"
    assert ensemble.bits().members == 2 * (15 * 5 + 5 * 32)
