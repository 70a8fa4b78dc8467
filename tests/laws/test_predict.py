"""Laws of prediction, for every sampler: how the work is cut up changes nothing."""

from __future__ import annotations

import pytest
import torch

from core.laws import same_bits
from laws.examples import SAMPLERS, images
from pluria.predict import gather, predict
from pluria.recipe.catalogue import methods
from pluria.recipe.method import Method


@pytest.mark.parametrize("method", methods("sample"), ids=lambda m: m.name)
def test_cutting_the_work_up_changes_nothing(method: Method) -> None:
    model, ensemble = SAMPLERS[method.name](method)
    x = images()
    whole = gather(predict(model, ensemble, [x]))[0]
    assert whole.shape == (len(ensemble), len(x), 3)
    assert same_bits(whole, gather(predict(model, ensemble, [x], block=2))[0])
    parts = gather(predict(model, ensemble, [x[:5], x[5:]]))[0]
    assert torch.allclose(whole, parts, rtol=1e-5, atol=1e-5)
    side_by_side = gather(predict(model, ensemble, [x], block=3, backend="vmap"))[0]
    assert torch.allclose(whole, side_by_side, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", methods("sample"), ids=lambda m: m.name)
def test_a_member_is_the_network_with_its_tensors_loaded(method: Method) -> None:
    model, ensemble = SAMPLERS[method.name](method)
    x, member = images(), ensemble.members[-1]
    found = gather(predict(model, ensemble, [x]))[0][-1]
    model.load_state_dict(ensemble.params(member))
    with torch.inference_mode():
        assert same_bits(found, model(x))
