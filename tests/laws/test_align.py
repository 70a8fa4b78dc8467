"""Laws of what makes members fit together."""

from __future__ import annotations

import pytest
import torch

from core.laws import same_bits
from laws.examples import ALIGNERS, UNLIKE, network, rows
from pluria.core.ensemble import single
from pluria.core.params import params_of
from pluria.recipe.catalogue import methods
from pluria.recipe.method import Method


@pytest.mark.parametrize("method", rows("align", "identity"), ids=lambda m: m.name)
def test_full_precision_is_left_as_it_is(method: Method) -> None:
    model = network()
    base = params_of(model)
    aligned = ALIGNERS[method.name](method.load(), model, single(base)).params(0)
    assert list(aligned) == list(base)
    assert all(same_bits(aligned[name], base[name]) for name in base)


@pytest.mark.parametrize("method", methods("align"), ids=lambda m: m.name)
def test_members_change_and_inputs_do_not(method: Method) -> None:
    model = network()
    before, state = params_of(model), torch.random.get_rng_state()
    ensemble = UNLIKE[method.name](model)
    aligned = ALIGNERS[method.name](method.load(), model, ensemble)
    assert aligned.members == ensemble.members
    assert not all(same_bits(aligned.params(1)[name], value) for name, value in ensemble.params(1).items())
    assert all(same_bits(value, before[name]) for name, value in params_of(model).items())
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.parametrize("method", methods("align"), ids=lambda m: m.name)
def test_a_member_does_not_depend_on_its_company(method: Method) -> None:
    model = network()
    ensemble = UNLIKE[method.name](model)
    together = ALIGNERS[method.name](method.load(), model, ensemble).params(2)
    alone = ALIGNERS[method.name](method.load(), model, ensemble.take([2])).params(2)
    assert all(same_bits(together[name], alone[name]) for name in together)
