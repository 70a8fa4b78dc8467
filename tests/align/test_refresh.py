"""Refresh: the formula by hand, the identity at full precision, members' numbers, and what is left alone."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from align.deep import STATISTICS, batches, deep, differing
from core.laws import same_bits
from pluria.align import has_batch_norm, refresh
from pluria.core.ensemble import Ensemble, single, stack
from pluria.core.params import params_of
from pluria.predict import gather, predict
from pluria.sample import gaussian, low_precision, nearest
from pluria.store import load, save
from predict.networks import draw


@pytest.mark.parametrize("count", [1, 3])
def test_full_precision_is_left_as_it_is(count: int) -> None:
    before = params_of(deep())
    refreshed = refresh(deep(), single(before), batches(count))
    assert all(same_bits(value, before[name]) for name, value in refreshed.params(0).items())


def test_a_fine_grid_hardly_changes_anything() -> None:
    before = params_of(deep())
    fine, coarse = (
        refresh(deep(), low_precision(deep(), format=format, members=1), batches()).params(0)
        for format in ("int8", "int3")
    )
    for name in STATISTICS:
        torch.testing.assert_close(fine[name], before[name], rtol=0.05, atol=0.02)
        assert (coarse[name] - before[name]).norm() > 3 * (fine[name] - before[name]).norm()


def test_by_hand() -> None:
    net = nn.Sequential(nn.Linear(2, 3, bias=False), nn.BatchNorm1d(3)).eval()
    net[1].running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    net[1].running_var.copy_(torch.tensor([1.0, 4.0, 0.5]))
    reference, member = params_of(net), params_of(net)
    member["0.weight"] = reference["0.weight"] + torch.tensor([[0.5, 0.0], [0.0, -0.25], [0.1, 0.2]])
    data = [draw(8, 2, seed=1), 1 + 2 * draw(8, 2, seed=2), draw(8, 2, seed=3)]
    made = refresh(net, stack([reference, member]), data).params(1)
    then, now = ([x @ params["0.weight"].T for x in data] for params in (reference, member))
    shift = sum(b.mean(dim=0) - a.mean(dim=0) for a, b in zip(then, now, strict=True)) / 3
    ratio = sum(b.var(dim=0) for b in now) / sum(a.var(dim=0) for a in then)
    torch.testing.assert_close(made["1.running_mean"], reference["1.running_mean"] + shift)
    torch.testing.assert_close(made["1.running_var"], reference["1.running_var"] * ratio)


def test_the_reference_can_be_given() -> None:
    trained = params_of(deep())
    other = deep()
    with torch.no_grad():
        other[0].weight.mul_(2)
        other[1].running_mean.add_(5)
    ensemble = low_precision(trained, format="int4", members=2)
    given = refresh(other, ensemble, batches(), reference=trained)
    own = refresh(deep(), ensemble, batches())
    for member in (0, 1):
        assert not differing(given.params(member), own.params(member))
    assert differing(refresh(other, ensemble, batches()).params(0), own.params(0)) == STATISTICS


def test_only_the_statistics_change() -> None:
    ensemble = low_precision(deep(), format="int3", members=3)
    refreshed = refresh(deep(), ensemble, batches())
    for before, after in zip(ensemble, refreshed, strict=True):
        assert differing(after, before) == STATISTICS
        assert all(after[name].dtype == before[name].dtype for name in after)
        assert (after["4.running_var"] > 0).all()
    assert [name for name, f in refreshed.families.items() if f is not ensemble.families[name]] == STATISTICS
    assert int(refreshed.params(0)["1.num_batches_tracked"]) == 20


def test_members_have_their_own_statistics() -> None:
    refreshed = refresh(deep(), low_precision(deep(), format="int3", members=3), batches())
    assert differing(refreshed.params(0), refreshed.params(1))[1:3] == ["1.running_mean", "1.running_var"]


@pytest.mark.parametrize("plain", [False, True])
def test_taken_members_keep_their_numbers(plain: bool) -> None:
    whole = low_precision(deep(), format="int4", members=6).reweight(torch.arange(1.0, 7.0))
    taken = whole.take([5, 1, 4])
    refreshed = refresh(deep(), taken, batches(), plain=plain)
    assert refreshed.members == (5, 1, 4)
    assert torch.equal(refreshed.weights, taken.weights)
    before = refresh(deep(), whole, batches(), plain=plain)
    for member in (5, 1, 4):
        assert not differing(refreshed.params(member), before.params(member))
    again = refreshed.take([2, 0])
    assert not differing(again.params(4), before.params(4))
    with pytest.raises(IndexError, match="member 0 is not kept"):
        refreshed.params(0)


def test_a_member_taken_twice_is_refreshed_once(tmp_path: Path) -> None:
    ensemble = low_precision(deep(), format="int4", members=3).take([0, 0, 2])
    calls: list[int] = []

    def forward(model: nn.Module, batch: Tensor) -> Tensor:
        calls.append(1)
        return model(batch)

    refreshed = refresh(deep(), ensemble, batches(), forward=forward)
    assert len(calls) == 3 * 3
    assert refreshed.members == (0, 0, 2)
    assert not differing(*list(refreshed.take([0, 1])))
    save(tmp_path / "e.pluria", refreshed)
    for member, read in zip(refreshed, load(tmp_path / "e.pluria"), strict=True):
        assert not differing(member, read)


def test_members_of_several_bases_are_held_against_their_own() -> None:
    bases = [params_of(deep()) for _ in range(2)]
    bases[1] |= {"1.running_mean": bases[1]["1.running_mean"] + 1, "3.weight": 1.5 * bases[1]["3.weight"]}
    both = stack(bases)
    assert all(
        same_bits(value, bases[member][name])
        for member in (0, 1)
        for name, value in refresh(deep(), both, batches(), reference=both).params(member).items()
    )
    drawn = low_precision(both, members=5, format="int4")
    made = refresh(deep(), drawn.take([1, 4, 2]), batches(), reference=both)
    for member in made.members:
        alone = refresh(deep(), single(drawn.params(member)), batches(), reference=bases[member % 2])
        assert differing(made.params(member), alone.params(0)) == []
    wrong = refresh(deep(), drawn, batches(), reference=bases[0])
    assert "1.running_mean" in differing(wrong.params(1), made.params(1))


def test_a_reference_without_counts_of_batches() -> None:
    ensemble = low_precision(deep(), format="int4", members=1)
    old = {name: value for name, value in params_of(deep()).items() if "num_batches" not in name}
    made = refresh(deep(), ensemble, batches(), reference=old)
    assert not differing(made.params(0), refresh(deep(), ensemble, batches()).params(0))


def test_batches_count_by_their_rows() -> None:
    net = nn.Sequential(nn.BatchNorm1d(3)).eval()
    x = draw(9, 3)
    made = refresh(net, single(params_of(net)), [x[:2], x[2:]], plain=True).params(0)
    torch.testing.assert_close(made["0.running_mean"], x.mean(dim=0))
    torch.testing.assert_close(made["0.running_var"], (2 * x[:2].var(dim=0) + 7 * x[2:].var(dim=0)) / 9)


def test_synchronised_batch_norms() -> None:
    model = nn.SyncBatchNorm.convert_sync_batchnorm(deep())
    assert has_batch_norm(model)
    ensemble = low_precision(deep(), format="int4", members=1)
    assert not differing(refresh(model, ensemble, batches()).params(0), refresh(deep(), ensemble, batches()).params(0))


def test_a_batch_of_one_value_per_channel_is_named() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with pytest.raises(ValueError, match=r"batch number 1 has one value per channel at batch norm '1'.*\(1, 3\)"):
        refresh(net, single(params_of(net)), [draw(4, 2), draw(1, 2)])


@pytest.mark.parametrize("form", [lambda x: (x,), lambda x: [x], lambda x: {"input": x}])
def test_forms_of_inputs(form) -> None:
    ensemble = low_precision(deep(), format="int4", members=1)
    made = refresh(deep(), ensemble, [form(x) for x in batches()])
    assert not differing(made.params(0), refresh(deep(), ensemble, batches()).params(0))


def test_refreshed_ensembles_can_be_refreshed_and_rounded_again() -> None:
    once = refresh(deep(), low_precision(deep(), format="int4", members=2), batches())
    twice = refresh(deep(), once, batches())
    assert not differing(once.params(1), twice.params(1))
    rounded = low_precision(once, format="int8", members=4)
    assert torch.equal(rounded.params(3)["1.running_var"], once.params(1)["1.running_var"])


@pytest.mark.parametrize("sampled", [nearest, gaussian])
def test_other_ensembles(sampled) -> None:
    ensemble = nearest(deep()) if sampled is nearest else gaussian(low_precision(deep(), format="int3", members=2))
    assert differing(refresh(deep(), ensemble, batches()).params(0), ensemble.params(0)) == STATISTICS


@pytest.mark.parametrize("size", [16, 5])
def test_plain_is_the_cumulative_average_of_update_bn(size: int) -> None:
    ensemble = low_precision(deep(), format="int4", members=2)
    made = refresh(deep(), ensemble, batches(size=size), plain=True)
    for member in ensemble.members:
        twin = deep()
        twin.load_state_dict(ensemble.params(member))
        update_bn(batches(size=size), twin)
        for name in STATISTICS:
            torch.testing.assert_close(made.params(member)[name], twin.state_dict()[name], rtol=1e-5, atol=1e-6)


def test_plain_is_not_the_identity() -> None:
    before = params_of(deep())
    assert differing(refresh(deep(), single(before), batches(), plain=True).params(0), before) == STATISTICS


class Twice(nn.Module):
    """One block in two places, and a batch norm that is never reached."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.second = self.first
        self.unused = nn.BatchNorm1d(4)
        self.free = nn.BatchNorm1d(4, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.free(self.second(self.first(x)))


def test_a_block_in_two_places() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Twice().eval()
    ensemble = low_precision(model, format="int3", members=2)
    made = refresh(model, ensemble, [draw(16, 4)])
    names = ("running_mean", "running_var")
    wanted = [f"{place}.1.{name}" for place in ("first", "second") for name in names]
    assert differing(made.params(1), ensemble.params(1)) == wanted
    for name in names:
        assert made.families[f"first.1.{name}"] is made.families[f"second.1.{name}"]


def test_a_channel_that_is_constant_in_the_reference() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.BatchNorm1d(2)).eval()
    reference, member = params_of(net), params_of(net)
    reference["0.weight"] = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    member["0.weight"] = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    made = refresh(net, single(member), [draw(8, 2)], reference=reference).params(0)
    assert made["1.running_var"][0] == reference["1.running_var"][0]
    assert torch.isfinite(made["1.running_var"]).all()


def test_members_come_closer_to_the_network() -> None:
    data = [1.3 * torch.rand(64, 3, 8, 8, generator=torch.Generator().manual_seed(99)) - 0.2]
    ensemble = low_precision(deep(), format="int3", members=8)

    def error(made: Ensemble) -> float:
        wanted, _ = gather(predict(deep(), single(params_of(deep())), data))
        return float((gather(predict(deep(), made, data))[0] - wanted).square().mean())

    assert error(refresh(deep(), ensemble, data)) < 0.9 * error(ensemble)
