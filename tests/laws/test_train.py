"""Laws of training methods, for every row of the catalogue."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from laws.examples import images, network, rows
from laws.test_sample import same
from laws.trainers import TRAINERS
from pluria.predict import gather, predict
from pluria.recipe.catalogue import methods
from pluria.recipe.method import Method
from pluria.store import load, save

every = pytest.mark.parametrize("method", methods("train"), ids=lambda m: m.name)


def keeps(law: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("method", rows("train", law), ids=lambda m: m.name)


@keeps("repeat")
def test_the_same_run_gives_the_same_bits(method: Method) -> None:
    run = TRAINERS[method.name]
    assert same(run(method.load(), False), run(method.load(), False))


@keeps("quiet")
def test_the_global_generator_is_untouched(method: Method) -> None:
    before = torch.get_rng_state()
    ensemble = TRAINERS[method.name](method.load(), False)
    ensemble.params(ensemble.members[-1])
    assert torch.equal(before, torch.get_rng_state())


@keeps("resume")
def test_a_run_that_was_stored_half_way_ends_on_the_same_bits(method: Method) -> None:
    run = TRAINERS[method.name]
    assert same(run(method.load(), True), run(method.load(), False))


@keeps("file")
def test_what_is_collected_is_stored_and_loaded(method: Method, tmp_path: Path) -> None:
    ensemble = TRAINERS[method.name](method.load(), False)
    save(tmp_path / "e.pluria", ensemble)
    assert same(load(tmp_path / "e.pluria"), ensemble)


@every
def test_what_is_collected_has_moved_and_answers(method: Method) -> None:
    ensemble = TRAINERS[method.name](method.load(), False)
    outputs, _ = gather(predict(network(), ensemble, [images()]))
    assert outputs.shape == (len(ensemble), 12, 3)
    assert torch.isfinite(outputs).all()
    assert not any(torch.equal(network()(images()), each) for each in outputs)


@pytest.mark.parametrize("name", ["SGLD", "IVON"])
def test_noise_from_the_shared_generator_is_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def shared(key: object, name: str, step: int, like: torch.Tensor) -> torch.Tensor:
        return torch.randn_like(like)

    monkeypatch.setattr("pluria.train.langevin.noise_of", shared)
    monkeypatch.setattr("pluria.train.ivon.noise_of", shared)
    method = next(row for row in methods("train") if row.name == name)
    for law in (
        test_the_same_run_gives_the_same_bits,
        test_the_global_generator_is_untouched,
        test_a_run_that_was_stored_half_way_ends_on_the_same_bits,
    ):
        with torch.random.fork_rng(), pytest.raises(AssertionError):
            law(method)
