"""Recipes in mergekit's form: what each key comes to, and what is refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from pluria import Merge, RecipeError, leafwise, merge_files, stack
from pluria.merge import task_arithmetic, ties
from pluria.recipe.merging.mergekit import from_mergekit, read_mergekit
from pluria.recipe.merging.translate import FORMS
from recipe.merging.files import params, write

NAMES = ["layers.0.w", "layers.1.mlp.w", "layers.2.w", "emb", "head"]


def recipe(method: str, *parameters: dict[str, Any], **general: Any) -> dict[str, Any]:
    keys = {name: general.pop(name) for name in ("dtype", "out_dtype", "base_model") if name in general}
    models = [{"model": f"m{i}", "parameters": own} for i, own in enumerate(parameters, 1)]
    base = {} if method == "linear" else {"base_model": "m0"}
    return {"merge_method": method, "models": models, **base, "parameters": general, **keys}


def settings(held: dict[str, Any], name: str = "layers.0.w") -> tuple[Any, Any]:
    merge = from_mergekit(held)
    assert merge.varying is not None
    return merge.varying(NAMES)(name)


@pytest.mark.parametrize(
    ("held", "weights", "options"),
    [
        (recipe("linear", {"weight": 1}, {"weight": 3}), [1, 3], {}),
        (recipe("task_arithmetic", {"weight": 1}, {"weight": -0.5}, **{"lambda": 2}), None, {"scale": [2, -1]}),
        (recipe("task_arithmetic", {"weight": 1}, {"weight": 3}, normalize=True), None, {"scale": [0.25, 0.75]}),
        (recipe("ties", {"weight": 1}, {}, density=0.3), [1, 1], {"spec": "mergekit", "density": 0.3, "scale": 1}),
        (
            recipe("ties", {"density": 0.1}, {}, density=0.2),
            [1, 1],
            {"spec": "mergekit", "density": [0.1, 0.2], "scale": 1},
        ),
        (recipe("ties", {}, {}), [1, 1], {"spec": "mergekit", "density": 1, "scale": 1}),
        (recipe("dare_linear", {"density": 0.5}), None, {"spec": "mergekit", "density": 0.5, "scale": [1]}),
        (
            recipe("dare_ties", {}, {}, normalize=True, density=0.5),
            [1, 1],
            {"spec": "mergekit", "elect": True, "density": 0.5, "scale": 1},
        ),
        (
            recipe("dare_ties", {"weight": 1}, {"weight": 3}, **{"lambda": 2}),
            [1, 3],
            {"spec": "mergekit", "elect": True, "density": 1, "divided": False, "scale": 8},
        ),
        (recipe("breadcrumbs", {"gamma": 0.1}), None, {"density": 1, "gamma": 0.1, "scale": [1]}),
        (
            recipe("della", {}, density=0.6, epsilon=0.1),
            [1],
            {"spec": "mergekit", "density": 0.6, "epsilon": 0.1, "scale": 1},
        ),
        (recipe("model_stock", {}, {}), None, {"clamp": False}),
        (recipe("sce", {}, {}, select_topk=0.2, int8_mask=True), None, {"spec": "mergekit", "select": 0.2}),
    ],
    ids=lambda value: value["merge_method"] if isinstance(value, dict) and "merge_method" in value else "",
)
def test_what_parameters_come_to(held: dict[str, Any], weights: Any, options: Any) -> None:
    assert settings(held) == (weights, options)


@pytest.mark.parametrize("method", FORMS)
def test_every_method_makes_a_rule_of_the_catalogue(method: str) -> None:
    from pluria.recipe.merging.files import rule_of

    general = {"density": 0.5} if "density" in FORMS[method].known else {}
    general |= {"t": 0.5} if method == "slerp" else {"normalize": True} if method == "linear" else {}
    held = recipe(method, {}, {}, **general)
    if method == "slerp":
        held["models"][0]["model"] = "m0"
    merge = from_mergekit(held)
    assert rule_of(merge.method, settings(held)[1]).combine is not None
    assert merge.base == (None if method in ("linear", "slerp") else "m0")


DELTAS = ([4.0, 1.0], [-2.0, 3.0])
UNDIVIDED = {
    # What mergekit 0.1.5 gives for two models with these task vectors, and weights, at density 1.
    ("breadcrumbs_ties", 0.5, 0.5, None): [2.0, 2.0],
    ("dare_ties", 0.5, 0.5, None): [2.0, 2.0],
    ("ties", 0.5, 0.5, False): [2.0, 2.0],
    ("ties", 0.5, 0.5, None): [4.0, 2.0],
    ("breadcrumbs_ties", 0.5, 0.5, True): [4.0, 2.0],
    ("della", 1.0, 3.0, False): [-6.0, 10.0],
    ("della", 1.0, 3.0, None): [-2.0, 2.5],
}


@pytest.mark.parametrize(("method", "one", "two", "normalize"), UNDIVIDED)
def test_without_normalize_elected_signs_are_not_divided(
    method: str, one: float, two: float, normalize: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, row in zip(("m0", "m1", "m2"), ([0.0, 0.0], *DELTAS), strict=True):
        save_file({"w": torch.tensor(row)}, name + ".safetensors")
    general = {} if normalize is None else {"normalize": normalize}
    general |= {"epsilon": 0.0} if method == "della" else {}
    held = recipe(method, {"weight": one}, {"weight": two}, base_model="m0.safetensors", **general)
    held["models"] = [{**model, "model": model["model"] + ".safetensors"} for model in held["models"]]
    merge_files(from_mergekit(held), "out.safetensors")
    assert load_file("out.safetensors")["w"].tolist() == UNDIVIDED[method, one, two, normalize]


def test_gradients_go_over_the_layers_and_filters_by_name() -> None:
    held = recipe("linear", {"weight": [0, 1]}, {"weight": [{"filter": "mlp", "value": 7}, {"value": [4, 2, 3]}]})
    merge = from_mergekit(held)
    assert merge.varying is not None
    of = merge.varying(NAMES)
    assert [of(name)[0] for name in NAMES] == [[0, 4], [0.5, 7], [1, 3], [0, 4], [0, 4]]
    inner = recipe("linear", {"weight": [0, 1, 5]})
    assert settings(inner, "layers.1.mlp.w")[0] == [1]


def test_slerp_goes_from_the_base_and_a_listed_base_has_no_task_vector() -> None:
    held = {
        "merge_method": "slerp",
        "base_model": "b",
        "models": [{"model": "a"}, {"model": "b"}],
        "parameters": {"t": 0},
    }
    assert from_mergekit(held).models == ("b", "a")
    assert from_mergekit({**held, "models": [{"model": "a"}]}).models == ("b", "a")
    assert from_mergekit(recipe("ties", {}) | {"models": [{"model": "m0"}, {"model": "m1"}]}).models == ("m1",)
    assert from_mergekit(recipe("linear", {}, dtype="float16", out_dtype="bfloat16")).dtype == "bfloat16"


MISTAKES = {
    "slices": ({**recipe("linear", {}), "slices": []}, "the key 'slices' is not read"),
    "tokenizer": ({**recipe("linear", {}), "tokenizer": {}}, "the key 'tokenizer' is not read"),
    "method": (recipe("tie", {}), "merge_method 'tie' is not read; did you mean 'ties'"),
    "no models": ({"merge_method": "linear"}, "`models` lists the models"),
    "model": ({"merge_method": "linear", "models": ["a"]}, "an entry has a `model`, a path; got 'a'"),
    "model key": ({"merge_method": "linear", "models": [{"model": "a", "lora": 1}]}, "models: the key 'lora'"),
    "parameter": (recipe("linear", {}, density=1), "parameters: the key 'density' is not read"),
    "own parameter": (recipe("ties", {"lambda": 1}), "m1: parameters: the key 'lambda' is not read"),
    "parameters": (recipe("linear", {}) | {"parameters": 3}, "parameters are a mapping; got 3"),
    "word": (recipe("linear", {"weight": "much"}), "weight is a number; got 'much'"),
    "truth": (recipe("ties", {"weight": True}), "weight is a number; got True"),
    "flag": (recipe("ties", {}, normalize="yes"), "normalize is true or false; got 'yes'"),
    "gammas": (recipe("breadcrumbs", {"gamma": 0.1}, {"gamma": 0.2}), r"gamma: one number .* got \[0.1, 0.2\]"),
    "normalize": (
        recipe("linear", {}, {}, normalize=False),
        "`normalize: false` is read only where weights sum to one",
    ),
    "zero": (recipe("task_arithmetic", {"weight": 1}, {"weight": -1}, normalize=True), "weights that sum to zero"),
    "t": (recipe("slerp", {}, {}, base_model="m1"), "t is a number; got None"),
    "slerp of two others": (
        recipe("slerp", {}, {}, t=0.5),
        "slerp goes from `base_model` to one other model; got base_model 'm0' and models m1, m2",
    ),
    "slerp of three": (
        recipe("slerp", {}, {}, {}, t=0.5, base_model="m1"),
        "got base_model 'm1' and models m1, m2, m3",
    ),
    "slerp from nowhere": (
        {name: value for name, value in recipe("slerp", {}, {}, t=0.5).items() if name != "base_model"},
        "got base_model None and models m1, m2",
    ),
    "base of a mean": (recipe("linear", {}, {}, base_model="m0"), "linear has no base; list base_model 'm0' among"),
    "list": (recipe("linear", {"weight": [1, "a"]}), "a list is of numbers, or of filters"),
    "empty": (recipe("linear", {"weight": []}), "a parameter that is a list is not empty"),
    "filter": (recipe("linear", {"weight": [{"filtr": "a", "value": 1}]}), "a filter: the key 'filtr' is not read"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str, tmp_path: Path) -> None:
    held, message = MISTAKES[name]
    path = tmp_path / "merge.yaml"
    path.write_text(yaml.safe_dump(held))
    with pytest.raises(RecipeError, match=message) as error:
        read_mergekit(path)
    assert str(path) in str(error.value)


def test_a_recipe_merges_like_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    files = [Path(path).name for path in write(tmp_path)]
    models = [{"model": files[1], "parameters": {"weight": 0.5}}, {"model": files[2], "parameters": {"weight": 0.25}}]
    members, base = stack([params(1), params(2)]), params(0)
    task = {"merge_method": "task_arithmetic", "base_model": files[0], "models": models}
    merge_files(from_mergekit(task), "out.safetensors")
    wanted = leafwise(members, task_arithmetic(scale=[0.5, 0.25]), base=base)
    assert all(torch.equal(value, wanted[name]) for name, value in load_file("out.safetensors").items())
    merge_files(from_mergekit({**task, "merge_method": "ties"}), "out.safetensors")
    weighted = members.reweight(torch.tensor([0.5, 0.25]))
    wanted = leafwise(weighted, ties(density=1.0, spec="mergekit"), base=base)
    assert all(torch.equal(value, wanted[name]) for name, value in load_file("out.safetensors").items())


def test_slerp_is_what_mergekit_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = {"a.safetensors": [*range(1, 10), 10, 0, 0], "b.safetensors": [*range(1, 10), 12, 2, 3]}
    for name, row in rows.items():
        save_file({"w": torch.tensor(row, dtype=torch.float32)}, name)
    general = {"parameters": {"t": 0.25}, "base_model": "b.safetensors"}
    held = {"merge_method": "slerp", "models": [{"model": "a.safetensors"}], **general}
    merge_files(from_mergekit(held), "out.safetensors")
    made = load_file("out.safetensors")["w"].tolist()
    # Of mergekit 0.1.5, for a base that is listed beside the other model or is not.
    assert made[-3:] == pytest.approx([11.538404, 1.504011, 2.256016], rel=1e-6)


def test_opposed_task_vectors_in_stock_are_refused_by_tensor(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{k}.safetensors") for k in range(3)]
    for path, row in zip(paths, ([0.0, 0.0], [1.0, 2.0], [-1.0, -2.0]), strict=True):
        save_file({"w": torch.tensor(row)}, path)
    held = recipe("model_stock", {}, {}, base_model=paths[0])
    held["models"] = [{"model": path} for path in paths[1:]]
    with pytest.raises(ValueError, match=r"tensor 'w': task vectors cancel .* Merge by `pluria merge model_stock`"):
        merge_files(from_mergekit(held), tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
    assert not list(tmp_path.glob(".*"))


def test_settings_that_differ_from_tensor_to_tensor(tmp_path: Path) -> None:
    files = write(tmp_path, 2)
    held = {
        "merge_method": "linear",
        "models": [
            {"model": files[0], "parameters": {"weight": [{"filter": "norm", "value": 1}, {"value": 0}]}},
            {"model": files[1], "parameters": {"weight": [{"filter": "norm", "value": 0}, {"value": 1}]}},
        ],
    }
    merge_files(from_mergekit(held), tmp_path / "out.safetensors")
    for name, value in load_file(tmp_path / "out.safetensors").items():
        if name != "bn.num_batches_tracked":
            assert torch.equal(value, params(0 if "norm" in name else 1)[name])


def test_a_rule_over_the_whole_model_has_one_setting(tmp_path: Path) -> None:
    files = write(tmp_path)
    varying = Merge(
        "ties",
        tuple(files[1:]),
        files[0],
        varying=lambda names: lambda name: (None, {"density": 0.5 if "norm" in name else 0.2}),
    )
    with pytest.raises(ValueError, match="ties measures the whole model, so its options are the same"):
        merge_files(varying, tmp_path / "out.safetensors")
