"""Whole searches: what is found, what is counted, what is read when, and how one goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pluria.search.run as searching
from pluria.core.errors import DataError, RecipeError
from pluria.pool.kinds import from_dict
from pluria.recipe.reading import read_recipe
from pluria.recipe.run import run
from pluria.search import read_search, search
from pluria.store.file import load_all
from search.tiny import pictures, planted

Found = dict[str, Any]


def searched(held: Found, out: Path, **budgets: Any) -> Found:
    recipe, budget, own = read_search(held, **budgets)
    return search(recipe, budget, out, own_arms=own)


def test_the_planted_best_ensemble_is_found(tmp_path: Path) -> None:
    found = searched(planted(tmp_path), tmp_path / "out", forwards=60)
    assert found["winner"]["arm"]["networks"] == ["left", "right"]
    assert found["winner"]["arm"]["method"] == "full_precision"
    assert found["winner"]["pool"] in ("mean_logit", "fit_log_linear"), "what each knows is to be multiplied"
    assert found["figures"]["single"]["difference"]["high"] < 0
    assert found["figures"]["winner"]["scores"]["nll"] < 0.6 < found["figures"]["single"]["scores"]["nll"]


def test_one_forward_leaves_the_single_model(tmp_path: Path) -> None:
    found = searched(planted(tmp_path), tmp_path / "out", forwards=60, inference_forwards=1)
    assert found["winner"]["name"] == found["figures"]["single"]["name"]
    assert found["winner"]["forwards"] == found["largest"] == 1
    assert found["figures"]["single"]["difference"]["estimate"] == 0


def test_the_ledger_counts_every_example_that_goes_through_a_network(asked: Found, tmp_path: Path) -> None:
    counted = 0

    def count(module: nn.Module, args: tuple[Any, ...]) -> None:
        nonlocal counted
        counted += len(args[0]) if type(module) is nn.Sequential else 0

    handle = torch.nn.modules.module.register_module_forward_pre_hook(count)
    try:
        found = searched(asked, tmp_path, forwards=80)
    finally:
        handle.remove()
    assert found["ledger"]["examples"] == counted > 0
    assert counted <= 80 * 100
    assert set(found["ledger"]["spent"]) == {"checks", "moments", "refresh", "calibration rows", "figure rows"}


@pytest.mark.parametrize("forwards", [16, 25, 40])
def test_the_budget_of_forwards_is_kept(asked: Found, tmp_path: Path, forwards: float) -> None:
    assert searched(asked, tmp_path, forwards=forwards)["ledger"]["forwards"] <= forwards


def test_figure_rows_are_read_last(
    asked: Found, done: tuple[Path, Found], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = searching.data_rows

    def spoiled(recipe: Any) -> Any:
        rows = plain(recipe)
        object.__setattr__(rows.figures, "inputs", torch.full_like(rows.figures.inputs, torch.nan))
        return rows

    monkeypatch.setattr(searching, "data_rows", spoiled)
    with pytest.raises(DataError, match="the outputs on figures hold NaN"):
        searched(asked, tmp_path, forwards=80)
    held, whole = json.loads((tmp_path / "search.json").read_text()), done[1]
    assert held["figures"] is None
    for name in ("winner", "candidates", "fronts", "looks"):
        assert held[name] == json.loads(json.dumps(whole[name]))
    assert (tmp_path / "winner.yaml").read_text() == (done[0] / "winner.yaml").read_text()
    assert (tmp_path / "winner.pluria").read_bytes() == (done[0] / "winner.pluria").read_bytes()


def test_labels_of_the_figure_rows_choose_nothing(
    asked: Found, done: tuple[Path, Found], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = searching.data_rows

    def relabelled(recipe: Any) -> Any:
        rows = plain(recipe)
        object.__setattr__(rows.figures, "targets", (rows.figures.targets + 1) % 3)
        return rows

    monkeypatch.setattr(searching, "data_rows", relabelled)
    found = searched(asked, tmp_path, forwards=80)
    assert found["candidates"] == done[1]["candidates"]
    assert found["figures"]["winner"]["temperature"] == done[1]["figures"]["winner"]["temperature"]
    assert found["figures"]["winner"]["scores"] != done[1]["figures"]["winner"]["scores"]


@pytest.mark.parametrize("after", [3, 9])
def test_an_interrupted_search_goes_on_to_the_same_end(
    asked: Found, done: tuple[Path, Found], tmp_path: Path, after: int
) -> None:
    recipe, budget, _ = read_search(asked, forwards=80)
    told: list[str] = []

    def stop(what: str, spent: float, total: float) -> None:
        told.append(what)
        if len(told) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(recipe, budget, tmp_path, progress=stop)
    resumed = search(recipe, budget, tmp_path)
    assert json.dumps(resumed) == json.dumps(done[1])


def test_the_winning_recipe_is_repeated_by_run(done: tuple[Path, Found], tmp_path: Path) -> None:
    out, found = done
    figures = run(read_recipe(out / "winner.yaml"), tmp_path / "again")
    by_name = {arm["name"]: arm for arm in figures["arms"]}
    for role in ("winner", "single", "int5", "views"):
        one = found["figures"].get(role)
        if one is None or one["temperature"] is None:
            continue
        assert by_name[one["name"]]["scaled"]["nll"] == pytest.approx(one["scores"]["nll"], abs=1e-5), role
        assert by_name[one["name"]]["pool"] == one["pool"]


def test_the_winners_members_are_kept(done: tuple[Path, Found]) -> None:
    out, found = done
    loaded = load_all(out / "winner.pluria")
    (ensemble,) = loaded.ensembles.values()
    assert len(ensemble) == found["winner"]["arm"]["members"]
    bits = ensemble.bits()
    assert found["winner"]["bits"] == min(bits.members, bits.planes)
    assert bits.file <= bits.members
    if not found["winner"]["temperature"] or found["winner"]["pool"] == "vote":
        assert loaded.about["pool"] == "mean_probability"
        return
    chain = from_dict(loaded.about["pool"])
    assert chain.steps[-1].value == found["figures"]["winner"]["temperature"]


def test_only_candidates_within_the_memory_are_chosen_from(
    asked: Found, done: tuple[Path, Found], tmp_path: Path
) -> None:
    single = done[1]["figures"]["single"]["bits"]
    most = 0.6 * single
    found = searched(asked, tmp_path, forwards=80, memory_bits=most)
    assert found["winner"]["bits"] <= max(one["bits"] for one in found["candidates"]) <= most
    assert found["figures"]["single"]["bits"] == single, "a control is shown whatever it costs"


def test_budgets_that_nothing_meets_name_the_nearest(asked: Found, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"nothing meets 10 bits; the nearest is one member of INT-3 .* with \d+ bits"
    ):
        searched(asked, tmp_path, memory_bits=10)
    with pytest.raises(
        RecipeError, match=r"2 forwards do not reach; the least that this search takes is (\d+\.\d)"
    ) as caught:
        searched(asked, tmp_path, forwards=2)
    least = float(str(caught.value).rsplit(" ", 1)[1])
    assert searched(asked, tmp_path / "least", forwards=least + 0.1)["figures"]


def test_one_training_leaves_out_companies_of_networks(tmp_path: Path) -> None:
    found = searched(planted(tmp_path), tmp_path / "one", forwards=60, trainings=1)
    assert {len(one["arm"]["networks"]) for one in found["candidates"]} == {1}
    assert found["budget"]["trainings"] == 1


def test_a_search_trains_nothing(tmp_path: Path) -> None:
    held = pictures(tmp_path)
    held["network"] = {"model": "small_cnn", "train": {"epochs": 1}}
    held["training"] = held["data"]
    with pytest.raises(RecipeError, match="a search trains nothing"):
        searched(held, tmp_path / "out")


def test_a_folder_of_another_search_is_refused(asked: Found, done: tuple[Path, Found], tmp_path: Path) -> None:
    recipe, budget, _ = read_search(asked, forwards=30)
    with pytest.raises(KeyboardInterrupt):
        search(recipe, budget, tmp_path, progress=stopped)
    other, _, _ = read_search({**asked, "batch": 5})
    with pytest.raises(RecipeError, match="holds another run"):
        search(other, budget, tmp_path)


def stopped(what: str, spent: float, total: float) -> None:
    raise KeyboardInterrupt


def test_a_cascade_is_counted_by_what_it_asks(tmp_path: Path) -> None:
    """Two forwards are allowed, so larger ensembles can be cascades alone."""
    held = planted(tmp_path)
    held["arms"] = [
        {"method": "full_precision", "networks": ["left", "right"]},
        {"method": "isotropic", "std": 0.3, "members": 2, "networks": ["left", "right"]},
        {"method": "full_precision", "networks": ["left"]},
    ]
    pools = {"pools": ["mean_logit", "fit_cascade"]}
    found = searched({**held, "search": pools}, tmp_path / "out", forwards=80, inference_forwards=2)
    assert found["largest"] == 4
    cascades = [one for one in found["candidates"] if one["pool"] == "fit_cascade"]
    assert cascades
    assert all(one["forwards"] <= 2 for one in found["candidates"])
    assert any(one["forwards"] % 1 for one in cascades)
    large = [one for one in found["candidates"] if one["arm"]["members"] * len(one["arm"]["networks"]) > 2]
    assert all(one in cascades for one in large)
    held["search"] = {"pools": ["mean_logit"]}
    assert searched(held, tmp_path / "plain", forwards=80, inference_forwards=2)["largest"] == 2


def test_a_cascade_may_win_and_is_kept(tmp_path: Path) -> None:
    held = planted(tmp_path)
    held["arms"] = [
        {"method": "full_precision", "networks": ["left", "right"]},
        {"method": "full_precision", "networks": ["left"]},
    ]
    held["search"] = {"pools": ["fit_cascade"]}
    found = searched(held, tmp_path / "out", forwards=40)
    assert found["winner"]["pool"] == "fit_cascade"
    assert 1 < found["winner"]["forwards"] <= 2
    assert found["figures"]["winner"]["forwards"] == pytest.approx(found["winner"]["forwards"], abs=0.2)
    chain = from_dict(load_all(tmp_path / "out" / "winner.pluria").about["pool"])
    assert chain.cascade.members == 2
    figures = run(read_recipe(tmp_path / "out" / "winner.yaml"), tmp_path / "again")
    arm = next(arm for arm in figures["arms"] if arm["pool"] == "fit_cascade")
    assert arm["cost"]["forwards"] == found["figures"]["winner"]["forwards"]
    assert arm["cost"]["flops"] == round(16 * sum(arm["asked"]))
    assert arm["asked"][0] == 1
    assert arm["scaled"]["nll"] == pytest.approx(found["figures"]["winner"]["scores"]["nll"], abs=1e-6)
