"""Ensembles: numbers, weights, ties, unions, pickles."""

import io
import pickle

import pytest
import torch

from core.families import NAME, SHAPE, affine, gaussian, joined, normal, rounded, stacked
from core.laws import same_bits
from pluria.core.coded import pack_planes
from pluria.core.ensemble import Ensemble, join, single, stack
from pluria.core.errors import CheckpointError
from pluria.core.family import Shared, Stacked


class Counted(Shared):
    """Counts how often it is written."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__(value)
        object.__setattr__(self, "calls", [])

    def write(self, member: int, out: torch.Tensor) -> None:
        self.calls.append(member)
        super().write(member, out)


def numbers(count: int = 4) -> Ensemble:
    """Members 0.., whose tensor holds their number."""
    return stack([{"w": torch.full((2,), float(i)), "n": torch.tensor(i)} for i in range(count)])


def values(ensemble: Ensemble) -> list[int]:
    return [int(params["n"]) for params in ensemble]


def test_weights_are_uniform_unless_given() -> None:
    assert numbers(4).weights.tolist() == [0.25] * 4
    assert numbers(4).weights.dtype == torch.float64


def test_weights_are_normalised() -> None:
    weighted = numbers(3).reweight(torch.tensor([1.0, 2.0, 1.0]))
    assert weighted.weights.tolist() == [0.25, 0.5, 0.25]
    assert weighted.reweight(None).weights.tolist() == pytest.approx([1 / 3] * 3)
    assert values(weighted) == [0, 1, 2]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], r"3 members need weights of shape \(3,\); got \(2,\)"),
        ([[1.0, 2.0, 3.0]], r"shape \(3,\)"),
        ([1.0, -1.0, 1.0], "not negative"),
        ([0.0, 0.0, 0.0], "not all zero"),
        ([1.0, float("nan"), 1.0], "finite"),
        ([1.0, float("inf"), 1.0], "finite"),
    ],
)
def test_bad_weights_are_refused(weights: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        numbers(3).reweight(torch.tensor(weights))


def test_no_members_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble({}, ())
    with pytest.raises(ValueError, match="at least one member"):
        numbers().take([])
    with pytest.raises(ValueError, match="no checkpoints"):
        stack([])
    with pytest.raises(ValueError, match="no ensembles"):
        join()


@pytest.mark.parametrize("members", [(0, 4), (-1,)])
def test_members_that_do_not_exist_name_the_tensor(members: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"tensor 'w': member -?\d does not exist; members are 0..3"):
        Ensemble({"w": Stacked(torch.zeros(4, 2))}, members)


def test_taken_members_keep_numbers_and_weights() -> None:
    weighted = numbers(4).reweight(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    taken = weighted.take([3, 1])
    assert taken.members == (3, 1)
    assert values(taken) == [3, 1]
    assert taken.weights.tolist() == pytest.approx([4 / 6, 2 / 6])
    again = taken.take([1])
    assert again.members == (1,)
    assert again.weights.tolist() == [1.0]
    assert weighted.first(2).members == (0, 1)
    assert weighted.first(2).weights.tolist() == pytest.approx([1 / 3, 2 / 3])
    assert values(weighted.take([0, 0])) == [0, 0]


def test_positions_out_of_range_are_refused() -> None:
    with pytest.raises(IndexError, match=r"4 members are at positions 0..3; got \[4\]"):
        numbers(4).take([4])
    with pytest.raises(IndexError, match="4 members"):
        numbers(4).first(5)


def test_members_as_params() -> None:
    made = numbers().params(2, dtype=torch.bfloat16)
    assert made["w"].dtype == torch.bfloat16
    assert made["w"].tolist() == [2.0, 2.0]
    assert made["n"].dtype == torch.int64
    assert [int(params["n"]) for params in numbers()] == [0, 1, 2, 3]


def test_families_cannot_be_changed_from_outside() -> None:
    given = {"w": Shared(torch.zeros(2))}
    ensemble = Ensemble(given, (0,))
    given["v"] = Shared(torch.zeros(2))
    assert list(ensemble.families) == ["w"]
    with pytest.raises(TypeError):
        ensemble.families["v"] = Shared(torch.zeros(2))  # type: ignore[index]


def test_tied_names_share_one_tensor_and_are_written_once() -> None:
    tied = Counted(torch.arange(2.0))
    ensemble = Ensemble({"a": tied, "b": Shared(torch.ones(2)), "c": tied}, (0,))
    params = ensemble.params(0)
    assert params["a"] is params["c"]
    assert tied.calls == [0]
    place = torch.zeros(2)
    ensemble.write(0, {"a": place, "b": torch.zeros(2), "c": place})
    assert tied.calls == [0, 0]
    # Detached tensors of a state dict are other objects in the same place.
    ensemble.write(0, {"a": place, "b": torch.zeros(2), "c": place.detach()})
    assert tied.calls == [0, 0, 0]
    # Tied here but not there: both places are written.
    apart = {name: torch.zeros(2) for name in "abc"}
    ensemble.write(0, apart)
    assert apart["a"].tolist() == apart["c"].tolist() == [0.0, 1.0]


def test_a_view_of_a_part_does_not_hide_the_whole() -> None:
    whole = torch.zeros(4)
    ensemble = Ensemble({"part": Shared(torch.full((2,), 5.0)), "whole": Shared(torch.arange(4.0))}, (0,))
    ensemble.write(0, {"part": whole[:2], "whole": whole})
    assert whole.tolist() == [0.0, 1.0, 2.0, 3.0]


def test_write_leaves_no_trace_in_autograd() -> None:
    target = torch.nn.Parameter(torch.zeros(2))
    single({"w": torch.ones(2)}).write(0, {"w": target})
    assert target.tolist() == [1.0, 1.0]
    assert target.is_leaf


def test_single_is_full_precision_and_keeps_ties() -> None:
    value = torch.nn.Parameter(torch.ones(2))
    ensemble = single({"a": value, "b": value, "c": torch.zeros(1)})
    assert ensemble.families["a"] is ensemble.families["b"]
    assert ensemble.families["a"] is not ensemble.families["c"]
    assert not ensemble.params(0)["a"].requires_grad


def test_views_of_one_memory_are_tied() -> None:
    value = torch.arange(2.0)
    ensemble = single({"a": value.detach(), "b": value.detach(), "part": value[:1]})
    assert ensemble.families["a"] is ensemble.families["b"]
    assert ensemble.families["a"] is not ensemble.families["part"]
    both = stack([{"a": value.detach(), "b": value.detach()}])
    assert both.families["a"] is both.families["b"]


def test_stack_copies_and_ties_only_what_is_tied_everywhere() -> None:
    one, other = torch.ones(2), torch.zeros(2)
    first, second = {"a": one, "b": one}, {"a": other, "b": other}
    ensemble = stack([first, second])
    assert ensemble.families["a"] is ensemble.families["b"]
    one.fill_(7)
    assert ensemble.params(0)["a"].tolist() == [1.0, 1.0]
    half = stack([first, {"a": other, "b": other.clone()}])
    assert half.families["a"] is not half.families["b"]
    with pytest.raises(CheckpointError, match="checkpoint number 1"):
        stack([first, {"a": one}])


def test_join_numbers_members_anew() -> None:
    both = join(numbers(4).take([3, 1]), numbers(2))
    assert both.members == (0, 1, 2, 3)
    assert values(both) == [3, 1, 0, 1]
    assert both.weights.tolist() == [0.25] * 4
    assert join(numbers(1), numbers(1), weights=torch.tensor([3.0, 1.0])).weights.tolist() == [0.75, 0.25]
    three = join(both.take([2, 0]), numbers(1), both)
    assert values(three) == [0, 3, 0, 3, 1, 0, 1]
    with pytest.raises(CheckpointError, match="1 missing"):
        join(numbers(), single({"w": torch.zeros(2)}))


def test_join_keeps_ties() -> None:
    value, row = torch.ones(2), torch.zeros(2)
    both = join(single({"a": value, "b": value}), stack([{"a": row, "b": row}]))
    assert both.families["a"] is both.families["b"]


def every() -> Ensemble:
    """All families of one shape."""
    tied = rounded()
    families = {
        "rounded": tied,
        "tied": tied,
        "stacked": stacked(),
        "gaussian": gaussian(),
        "affine": affine(),
        "joined": joined(),
        "planes": pack_planes(rounded(), range(5)),
        "shared": Shared(normal(*SHAPE)),
        "number": Stacked(torch.arange(5)),
    }
    return Ensemble(families, (4, 0, 2), torch.tensor([0.3, 0.5, 0.2]))


def equal(one: Ensemble, other: Ensemble) -> bool:
    """Equal numbers, weights and bits of all members."""
    if one.members != other.members or not torch.equal(one.weights, other.weights):
        return False
    pairs = zip(one, other, strict=True)
    return all(list(a) == list(b) and all(same_bits(a[n], b[n]) for n in a) for a, b in pairs)


def test_equality_sees_each_difference() -> None:
    assert equal(every(), every())
    assert not equal(every(), every().take([0, 2, 1]))
    assert not equal(every(), every().reweight(None))
    assert not equal(every(), every().with_families({"shared": Shared(torch.zeros(SHAPE))}))


def test_pickle_keeps_everything() -> None:
    ensemble = every()
    copy = pickle.loads(pickle.dumps(ensemble))
    assert equal(copy, ensemble)
    assert copy.families["rounded"] is copy.families["tied"]


def test_weights_do_not_drift_when_copied() -> None:
    for seed in range(50):
        weights = torch.rand(30, generator=torch.Generator().manual_seed(seed))
        ensemble = numbers(30).reweight(weights)
        assert torch.equal(pickle.loads(pickle.dumps(ensemble)).weights, ensemble.weights)
        assert torch.equal(ensemble.with_families({}).weights, ensemble.weights)


def test_to_keeps_members_and_ties() -> None:
    moved = every().to("cpu")
    assert equal(moved, every())
    assert moved.families["rounded"] is moved.families["tied"]
    meta = every().to("meta")
    assert meta.families["shared"].value.device.type == "meta"
    assert meta.families["rounded"].base.value.device.type == "meta"
    assert meta.families["planes"].grids[0].scale.device.type == "meta"


def test_outline_has_no_data() -> None:
    outline = every().outline()
    assert list(outline) == list(every().families)
    assert outline["number"].dtype == torch.int64
    assert {value.device.type for value in outline.values()} == {"meta"}
    assert outline["rounded"].shape == torch.Size(SHAPE)


def test_pickle_is_small() -> None:
    thousand = Ensemble({NAME: rounded()}, tuple(range(1000)))
    buffer = io.BytesIO()
    pickle.dump(thousand, buffer)
    assert buffer.tell() < 20_000
