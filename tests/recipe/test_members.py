"""Members that a network brings along: every training that leaves some, once, resumed after a kill, or from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from pluria.core.ensemble import Ensemble
from pluria.core.errors import RecipeError
from pluria.core.params import params_of
from pluria.recipe import trainers
from pluria.recipe.brought import expected
from pluria.recipe.catalogue import methods
from pluria.recipe.folder import RunFolder
from pluria.recipe.method import Method
from pluria.recipe.parts import Members
from pluria.recipe.prepare import prepare
from pluria.recipe.run import run
from pluria.store import load, load_all, save
from pluria.train import restarted
from pluria.zoo import Dataset, network, read
from recipe.tiny import ARGUMENTS, plain, recipe, write_all

METHODS = [method for method in methods("train") if method.maker]
NET: dict[str, Any] = {"model": "small_cnn", "arguments": ARGUMENTS}
HOW: dict[str, Any] = {"epochs": 2, "batch": 8, "rate": 0.05}
OWN: dict[str, dict[str, Any]] = {
    "lora": {"rank": 2, "own": ["head.bias"]},
    "Snapshots": {"cycles": 3},
    "SWAG": {"rank": 2, "members": 3, "every": 1},
    "multi_swag": {"rank": 2, "members": 4, "runs": 2, "every": 1},
    "subspace": {"members": 3, "penalty": 0.5},
}


def rows(folder: Path) -> Dataset:
    write_all(folder)
    return read("arrays", path=str(folder / "train.npz"))


def asked(folder: Path, members: Any, **changes: Any) -> Any:
    """A recipe whose network brings members along, trained on rows of their own."""
    training = {"reader": "arrays", "arguments": {"path": str(folder / "train.npz")}}
    held = {"network": {**NET, "members": members}, "training": training, "arms": [{"method": "collected"}]}
    return recipe(folder, **{**held, **changes})


def same(one: Ensemble, other: Ensemble) -> bool:
    return len(one) == len(other) and all(torch.equal(a[n], b[n]) for a, b in zip(one, other, strict=True) for n in a)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_every_training_leaves_what_is_expected_of_it_and_repeats(method: Method, tmp_path: Path) -> None:
    data = rows(tmp_path)
    how = Members.model_validate({"method": method.name, **HOW, **OWN.get(method.name, {})})
    made = []
    for _ in range(2):
        model = network("small_cnn", **ARGUMENTS)
        start, before = params_of(model), torch.get_rng_state()
        ensemble, runs = method.make(trainers.Loop(how, data), method.load(), model, **how.options)
        assert torch.equal(before, torch.get_rng_state())
        made.append(ensemble)
    assert len(ensemble) == expected(how, data)
    assert runs == {"several": len(ensemble), "expanded": len(ensemble), "joined": 2}.get(method.make.__name__, 1)
    assert same(*made)
    assert set(ensemble.families) == set(start)
    assert not all(torch.equal(value, start[name]) for name, value in ensemble.params(0).items())
    assert not all(torch.equal(value, start[name]) for name, value in model.state_dict().items())
    if len(ensemble) > 1:
        assert not same(ensemble.first(1), ensemble.take([1]))


def test_members_are_judged_beside_others_and_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_all(tmp_path)
    arms = [{"method": "collected"}, {"method": "low_precision", "of": "collected", "format": "int3", "members": 6}]
    spec = asked(tmp_path, {"method": "Snapshots", "cycles": 3, **HOW}, arms=arms, seeds=[0, 1])
    found = run(spec, tmp_path / "out")
    names = {arm["name"]: arm for arm in found["arms"] if not arm["control"]}
    assert list(names) == [
        "trained members × 3", "INT-3 stratified of collected × 6", "INT-3 stratified of collected refreshed × 6"
    ]  # fmt: skip
    # Two epochs of five batches, whatever is made of what they leave; nothing for the network alone.
    assert {arm["cost"]["backward_passes"] for arm in names.values()} == {10}
    assert next(arm for arm in found["arms"] if arm["name"] == "full precision")["cost"]["backward_passes"] == 0
    (file,) = (tmp_path / "out" / "trained").iterdir()
    assert load_all(file).about == {"backward_passes": 10}

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(trainers, "train", never)
    assert [a["name"] for a in run(spec, tmp_path / "out")["arms"]] == [a["name"] for a in found["arms"]]
    with pytest.raises(AssertionError, match="trained again"):
        run(spec, tmp_path / "out", restart=True)


def test_a_training_without_members_leaves_no_folder_for_them(tmp_path: Path) -> None:
    write_all(tmp_path)
    trained = {**NET, "train": {"epochs": 1, "batch": 8}}
    arms = [{"method": "low_precision", "members": 2, "format": "int3"}]
    prepare(asked(tmp_path, None, network=trained, arms=arms), folder=RunFolder(tmp_path / "out"))
    assert not (tmp_path / "out" / "trained").exists()


def test_corners_of_a_simplex_are_drawn_from(tmp_path: Path) -> None:
    how = Members.model_validate({"method": "subspace", **HOW, "corners": 3, "members": 2})
    (method,) = (method for method in METHODS if method.name == "subspace")
    model = network("small_cnn", **ARGUMENTS)
    ensemble, _ = method.make(trainers.Loop(how, rows(tmp_path)), method.load(), model, **how.options)
    shares = ensemble.families["head.weight"].coordinates  # type: ignore[attr-defined]
    assert shares.shape == (2, 3)
    assert torch.allclose(shares.sum(1), torch.ones(2, dtype=torch.float64))
    points = ensemble.families["head.weight"].directions  # type: ignore[attr-defined]
    assert torch.allclose(model.state_dict()["head.weight"], points.mean(0), atol=1e-6)


@pytest.mark.parametrize(
    ("method", "when"), [("Snapshots", 0.5), ("independent", 1.5), ("multi_swag", 1.5), ("subspace", 0.5)]
)
def test_a_training_that_was_killed_goes_on_to_the_same_bits(method: str, when: float, tmp_path: Path) -> None:
    write_all(tmp_path)
    spec = asked(tmp_path, {"method": method, **HOW, "epochs": 3})
    whole = prepare(spec).sources["network"]

    def killed(what: str, done: float, total: float) -> None:
        if done > when:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(spec, tmp_path / "out", progress=killed)
    assert {file.suffix for file in (tmp_path / "out" / "trained").iterdir()} == {".pt"}
    run(spec, tmp_path / "out")
    (file,) = (tmp_path / "out" / "trained").iterdir()
    assert whole.collected is not None
    assert same(load(file, name="members"), whole.collected)
    assert all(torch.equal(v, whole.model.state_dict()[n]) for n, v in load(file, name="network").params(0).items())


def test_a_training_starts_from_the_network_as_it_stands(tmp_path: Path) -> None:
    write_all(tmp_path)
    begun = {**NET, "checkpoint": str(tmp_path / "net.safetensors")}
    held = {"method": "prune_and_tune", "members": 2, **HOW}
    source = prepare(asked(tmp_path, None, network={**begun, "members": held})).sources["network"]
    base = prepare(recipe(tmp_path)).sources["network"].model.state_dict()
    assert all(torch.equal(value, base[name]) for name, value in source.model.state_dict().items())
    assert source.collected is not None
    kept = source.collected.params(0)["conv1.weight"] != 0
    assert 0.4 < float(kept.float().mean()) < 0.6


def test_members_of_a_file(tmp_path: Path) -> None:
    write_all(tmp_path)
    nets = [network("small_cnn", seed=seed, **ARGUMENTS) for seed in (4, 5)]
    from pluria.core.ensemble import stack

    save(tmp_path / "mine.pluria", stack([params_of(net) for net in nets]))
    spec = recipe(tmp_path, network={**NET, "members": str(tmp_path / "mine.pluria")}, arms=[{"method": "collected"}])
    source = prepare(spec).sources["network"]
    assert torch.equal(source.model.state_dict()["head.weight"], nets[1].state_dict()["head.weight"])
    found = run(spec, tmp_path / "out")
    assert [arm["name"] for arm in found["arms"] if not arm["control"]] == ["trained members × 2"]


def test_a_plan_knows_how_many_there_will_be(tmp_path: Path) -> None:
    write_all(tmp_path)
    (job,) = [j for j in prepare(asked(tmp_path, {"method": "star", **HOW}), train=False).jobs if not j.control]
    assert job.arm.members == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "Snapshot"}, r"network.members: unknown method 'Snapshot'; did you mean 'Snapshots'"),
        ({"method": "curve"}, "unknown method 'curve'"),
        ({"method": "SWAG", "rnk": 3}, "method 'SWAG' has no option 'rnk'; did you mean 'rank'"),
        ({"method": "SWAG", "rank": "high"}, "rank"),
        ({"method": "SGHMC", "lr": 0.1}, "has no option 'lr'"),
        ({"method": "Snapshots", "cycles": 99}, "a run of 10 steps has at most as many cycles; got 99"),
        ({"method": "multi_swag", "members": 3, "runs": 2}, "as many members around each run; 2 runs do not divide 3"),
        ({"method": "star", "members": 0}, "star leaves 1 member or more; got 0"),
        (
            {"method": "Snapshots", "epochs": 0},
            r"^the recipe is not a recipe:\n  network.members.epochs: Input .* \(got 0\)$",
        ),
        ({"method": "Snapshots", "cycles": 0, "every": 50}, "would leave none in 10 steps"),
    ],
)
def test_trainings_that_cannot_be(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_all(tmp_path)
    with pytest.raises(RecipeError, match=message):
        prepare(asked(tmp_path, {**HOW, **changes}), train=False)


def test_arms_that_ask_for_what_is_not_brought(tmp_path: Path) -> None:
    write_all(tmp_path)
    with pytest.raises(RecipeError, match="'network' brings no members along"):
        prepare(recipe(tmp_path, arms=[{"method": "collected"}]))
    with pytest.raises(RecipeError, match="asks for 9 members, and 4 are brought along"):
        prepare(asked(tmp_path, {"method": "star", **HOW}, arms=[{"method": "collected", "members": 9}]), train=False)
    with pytest.raises(RecipeError, match="statistics of their own"):
        prepare(
            asked(tmp_path, {"method": "star", **HOW}, arms=[{"method": "collected", "refresh": True}]), train=False
        )
    with pytest.raises(RecipeError, match="`train` or `members` of a network"):
        recipe(tmp_path, network={**plain(tmp_path)["network"], "members": {"method": "star", **HOW}})
    diverging = asked(tmp_path, {"method": "star", **HOW, "rate": 1e12})
    with pytest.raises(RecipeError, match=r"members by star: .*(nan|inf|NaN)"):
        prepare(diverging)


def test_a_start_anew_is_another_one_and_repeats() -> None:
    model = network("small_cnn", **ARGUMENTS)
    one, other, again = restarted(model, 1), restarted(model, 2), restarted(model, 1)
    assert not torch.equal(one.state_dict()["head.weight"], other.state_dict()["head.weight"])
    assert torch.equal(one.state_dict()["head.weight"], again.state_dict()["head.weight"])
