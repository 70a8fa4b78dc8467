"""Laws of samplers, for every row of the catalogue; and what a row says it breaks is really broken."""

from __future__ import annotations

import inspect
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from core.laws import same_bits
from laws.examples import SAMPLERS, images, network, rows
from pluria.core.ensemble import Ensemble
from pluria.core.family import block
from pluria.core.params import params_of
from pluria.predict import gather, predict
from pluria.recipe.catalogue import methods
from pluria.recipe.method import Method
from pluria.sample import noise
from pluria.store import load_all, save

every = pytest.mark.parametrize("method", methods("sample"), ids=lambda m: m.name)


def keeps(law: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("method", rows("sample", law), ids=lambda m: m.name)


def same(one: Ensemble, other: Ensemble, members: tuple[int, ...] | None = None) -> bool:
    """Equality of names and of every bit of the given members."""
    pairs = ((one.params(i), other.params(i)) for i in members or one.members)
    return all(list(a) == list(b) and all(same_bits(a[n], b[n]) for n in a) for a, b in pairs)


def outputs(method: Method, key: int = 7, members: int = 3) -> Tensor:
    return gather(predict(*SAMPLERS[method.name](method, members, key), [images()]))[0]


@keeps("bits")
def test_the_same_key_gives_the_same_bits(method: Method) -> None:
    make = SAMPLERS[method.name]
    torch.manual_seed(1)
    first = make(method)[1]
    torch.manual_seed(2)
    again = make(method)[1]
    again.params(again.members[-1])
    assert first.members == again.members
    assert same(first, again)
    assert same_bits(outputs(method), outputs(method))


@every
def test_another_key_gives_other_members_where_there_is_one(method: Method) -> None:
    takes_key = "key" in inspect.signature(method.load()).parameters
    assert torch.equal(outputs(method, key=7), outputs(method, key=8)) is not takes_key


@every
def test_a_block_is_its_members_one_by_one_and_in_place(method: Method) -> None:
    ensemble = SAMPLERS[method.name](method)[1]
    order = tuple(reversed(ensemble.members))
    alone = {member: ensemble.params(member) for member in order}
    for name, family in ensemble.families.items():
        assert all(same_bits(row, alone[i][name]) for row, i in zip(block(family, order), order, strict=True))
    for member in order:
        held = {name: torch.full_like(value, 1) for name, value in alone[member].items()}
        ensemble.write(member, held)
        assert all(same_bits(held[name], value) for name, value in alone[member].items())


@keeps("prefix")
def test_the_first_members_do_not_change_as_their_number_grows(method: Method) -> None:
    make = SAMPLERS[method.name]
    few, many = make(method, 3)[1], make(method, 7)[1]
    assert many.members[:3] == few.members
    assert same(few, many, few.members)
    assert same_bits(outputs(method, members=3), outputs(method, members=7)[:3])


@every
def test_inputs_and_global_generators_are_untouched(method: Method) -> None:
    model = network()
    before, states = params_of(model), (torch.random.get_rng_state(), random.getstate(), np.random.get_state()[1])  # noqa: NPY002
    made, ensemble = SAMPLERS[method.name](method, model=model)
    for member in ensemble.members:
        for value in ensemble.params(member).values():
            value.zero_()
    gather(predict(made, ensemble, [images()]))
    after = params_of(model)
    assert list(before) == list(after)
    assert all(same_bits(before[name], after[name]) for name in before)
    assert torch.equal(states[0], torch.random.get_rng_state())
    assert states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])  # noqa: NPY002


@keeps("file")
def test_what_is_stored_and_loaded_is_the_same(method: Method, tmp_path: Path) -> None:
    ensemble = SAMPLERS[method.name](method)[1]
    save(tmp_path / "e.pluria", {"one": ensemble, "two": ensemble.first(1)}, about={"method": method.name})
    loaded = load_all(tmp_path / "e.pluria")
    assert list(loaded.ensembles) == ["one", "two"]
    assert loaded.about == {"method": method.name}
    assert loaded.ensembles["one"].members == ensemble.members
    assert torch.equal(loaded.ensembles["one"].weights, ensemble.weights)
    assert same(ensemble, loaded.ensembles["one"])


def off_by(method: Method, members: int = 400) -> float:
    """The largest deviation of the members' mean from the base, in units of what chance allows.

    Four standard errors, and ten K-ths of the tensor's largest step: a weight that moves once in K draws or less often
    has no standard error to speak of.
    """
    base, ensemble = params_of(network()), SAMPLERS[method.name](method, members)[1]
    worst = 0.0
    for name, wanted in base.items():
        values = block(ensemble.families[name], ensemble.members, dtype=torch.float64)
        error = (values.mean(0) - wanted).abs()
        step = float((values.amax(0) - values.amin(0)).max())
        spread = values.std(0, correction=0) / len(values) ** 0.5
        allowed = 4 * spread + 10 * step / len(values)
        worst = max(worst, float((error / allowed.clamp(min=1e-12)).max()))
    return worst


@keeps("mean")
def test_the_mean_of_many_members_is_the_base(method: Method) -> None:
    assert off_by(method) < 1


@pytest.mark.parametrize("name", ["nearest", "gptq", "path"])
def test_what_breaks_the_law_of_the_mean_is_really_off(name: str) -> None:
    (method,) = [method for method in methods("sample") if method.name == name]
    assert "mean" in method.breaks
    assert off_by(method, 200) > 2


def test_feedback_is_off_where_it_meets_the_end_of_the_grid() -> None:
    (method,) = [method for method in methods("sample") if method.name == "compensated"]
    assert "mean" in method.breaks
    assert off_by(method) > 2
    rows = noise(SAMPLERS["compensated"](method)[1])
    assert all(0 < row.clipped < 0.1 for row in rows)


@pytest.mark.parametrize("name", ["plane", "path"])
def test_members_of_a_fixed_grid_really_change_with_its_size(name: str) -> None:
    (method,) = [method for method in methods("sample") if method.name == name]
    assert "prefix" in method.breaks
    few, many = (SAMPLERS[name](method, members)[1] for members in (3, 5))
    assert not same(few, many, few.members)


@every
def test_a_single_model_is_one_whatever_is_asked(method: Method) -> None:
    if not SAMPLERS[method.name].grows:
        assert "prefix" in method.breaks
        assert len(SAMPLERS[method.name](method, 5)[1]) == 1


def test_noise_of_dropout_is_on_activations() -> None:
    (method,) = [method for method in methods("sample") if method.name == "dropout"]
    assert "mean" in method.breaks
    made, ensemble = SAMPLERS["dropout"](method)
    base, member = params_of(network()), ensemble.params(1)
    assert all(same_bits(member[name], base[name]) for name in base)
    rows = gather(predict(made, ensemble, [images()]))[0]
    assert not torch.equal(rows[0], rows[1])
