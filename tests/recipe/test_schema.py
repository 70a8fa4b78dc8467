"""A recipe is refused in words that say where it is wrong and which name may be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from pluria.core.errors import RecipeError
from pluria.recipe.reading import make_recipe, read_recipe
from pluria.recipe.schema import Arm
from recipe.tiny import plain

FIRST = {"method": "low_precision"}


def refusal(**changes: Any) -> str:
    """What a recipe with these changes is refused with."""
    with pytest.raises(RecipeError) as caught:
        make_recipe(plain(Path(), **changes))
    return str(caught.value)


def test_defaults() -> None:
    recipe = make_recipe(plain(Path(), arms=[FIRST]))
    assert recipe.calibration == "half"
    assert recipe.seeds == (0,)
    assert recipe.arms[0].members == 8
    assert recipe.arms[0].options == {}
    assert make_recipe(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("changes", "path", "meant"),
    [
        ({"ntwork": {}}, "ntwork", "network"),
        ({"network": {"model": "mlp", "chekpoint": "x"}}, "network.chekpoint", "checkpoint"),
        ({"network": {"model": "mlp", "train": {"epoch": 1, "epochs": 1}}}, "network.train.epoch", "epochs"),
        ({"data": {"reader": "digits", "row": 5}}, "data.row", "rows"),
        ({"calibration": {"reader": "digits", "argument": {}}}, "calibration.argument", "arguments"),
        ({"training": {"reader": "digits", "row": 5}}, "training.row", "rows"),
    ],
)
def test_unknown_keys_are_answered_with_the_nearest_name(changes: dict[str, Any], path: str, meant: str) -> None:
    said = refusal(**changes)
    assert f"unknown key {path}; did you mean {meant!r}? There are: " in said
    assert "Input should be 'half'" not in said


def test_unknown_keys_far_from_all_names_are_answered_with_all() -> None:
    assert "unknown key data.qqq. There are: reader, arguments, rows" in refusal(data={"reader": "digits", "qqq": 1})


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        ({"method": "low_precisoin"}, "arms.1: unknown method 'low_precisoin'; did you mean 'low_precision'?"),
        ({"method": "refresh"}, "arms.1: unknown method 'refresh'"),
        ({"method": "plane"}, "arms.1: unknown method 'plane'"),
        ({**FIRST, "fromat": "int5"}, "method 'low_precision' has no option 'fromat'; did you mean 'format'?"),
        ({**FIRST, "memebrs": 4}, "has no option 'memebrs'; did you mean 'members'?"),
        ({"method": "nearest", "coupling": "stratified"}, "method 'nearest' has no option 'coupling'"),
        ({**FIRST, "key": 3}, "method 'low_precision' has no option 'key'"),
        ({"method": "isotropic"}, "method 'isotropic' needs std"),
        ({**FIRST, "format": 5}, "option 'format': Input should be a valid string"),
        ({**FIRST, "coupling": "stratifed"}, "option 'coupling': Input should be 'independent', 'antithetic' or"),
        ({**FIRST, "granularity": "16"}, "option 'granularity': Input should be 'tensor' or 'channel'; or"),
        ({**FIRST, "where": "features.*"}, "option 'where': Input should be a valid list (got 'features.*')"),
        ({"method": "gaussian", "scale": "big"}, "option 'scale': Input should be a valid number (got 'big')"),
        ({**FIRST, "views": ["flipp"]}, "arms.1: views: no view is called 'flipp'; did you mean 'flip'?"),
        ({**FIRST, "views": []}, "arms.1.views: is empty"),
        ({**FIRST, "members": 0}, "arms.1.members: Input should be greater than or equal to 1 (got 0)"),
        ({**FIRST, "each": {"format": []}}, "arms.1.each.format: is empty"),
        ({**FIRST, "each": {"format": "int5"}}, "arms.1.each.format: wanted a list (got 'int5')"),
        ({**FIRST, "each": {"members": [2, "x"]}}, "arms.1: a value of `each` does not fit: members: "),
        ({**FIRST, "each": {"coupling": ["x"]}}, "option 'coupling'"),
        ({**FIRST, "each": {"fromat": ["int5"]}}, "has no option 'fromat'; did you mean 'format'?"),
        ({"format": "int5"}, "arms.1.method: is missing"),
        ("low_precision", "arms.1: wanted a mapping (got 'low_precision')"),
    ],
)
def test_wrong_arms(arm: Any, said: str) -> None:
    message = refusal(arms=[FIRST, arm])
    assert said in message
    assert "  arms: " not in message, "what follows from another problem is not said"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": []}, "arms: is empty"),
        ({"arms": "low_precision"}, "arms: wanted a list (got 'low_precision')"),
        ({"seeds": []}, "seeds: is empty"),
        ({"seeds": 3}, "seeds: wanted a list (got 3)"),
        ({"seeds": ["one"]}, "seeds.0: "),
        ({"batch": 0}, "batch: Input should be greater than or equal to 1 (got 0)"),
        ({"dtype": "float16"}, "dtype: Input should be 'float32' or 'bfloat16' (got 'float16')"),
        ({"views": ["mirror"]}, "views: no view is called 'mirror'"),
        ({"calibration": "haf"}, "calibration: Input should be 'half' (got 'haf')"),
        ({"calibration": {}}, "calibration.reader: is missing"),
        ({"data": {"reader": "digits", "rows": 1}}, "data.rows: Input should be greater than or equal to 2"),
        ({"network": "mlp"}, "network: wanted a mapping (got 'mlp')"),
        ({"network": {"model": "mlp", "train": {"epochs": 0}}}, "network.train.epochs: "),
        ({"network": {"model": "mlp", "train": {"epochs": 1}}}, "`training` (the rows) are given together"),
        ({"training": {"reader": "digits"}}, "`train` or `members` of a network (how) and `training`"),
        (
            {
                "network": {"model": "mlp", "checkpoint": "x", "train": {"epochs": 1}},
                "training": {"reader": "digits"},
            },
            "a checkpoint or `train`, not both",
        ),
    ],
)
def test_wrong_recipes(changes: dict[str, Any], said: str) -> None:
    assert said in refusal(**changes)


def test_rows_that_calibrate_do_not_give_the_figures() -> None:
    assert "calibration: these are the rows of `data`" in refusal(calibration=plain(Path())["data"])


def test_all_that_is_missing_is_named_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        make_recipe({"title": "nothing"})
    assert str(caught.value).splitlines() == [
        "the recipe is not a recipe:",
        "  data: is missing",
        "  arms: is missing",
    ]


def test_each_gives_one_arm_for_every_combination() -> None:
    arm = Arm(method="low_precision", members=4, each={"format": ["int5", "int4"], "members": [2, 3]}, refresh=True)
    assert [(a.options["format"], a.members, a.refresh, a.each) for a in arm.expanded()] == [
        ("int5", 2, True, {}),
        ("int5", 3, True, {}),
        ("int4", 2, True, {}),
        ("int4", 3, True, {}),
    ]
    assert Arm(method="nearest").expanded() == [Arm(method="nearest")]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    place = tmp_path / "recipe.yaml"
    place.write_text(yaml.safe_dump(plain(tmp_path)), encoding="utf-8")
    return place


def test_changes_are_put_in(file: Path) -> None:
    changes = [
        "seeds=[0, 1]",
        "data.rows=30",
        "arms.0.format=int5",
        "arms.0.each.coupling=[independent, antithetic]",
        "title=A = B",
        "calibration={reader: digits, rows: 9}",
        "network.arguments.width=8",
    ]
    recipe = read_recipe(file, changes)
    assert recipe.seeds == (0, 1)
    assert recipe.data.rows == 30
    assert recipe.arms[0].options == {"format": "int5"}
    assert len(recipe.arms[0].expanded()) == 2
    assert recipe.title == "A = B"
    assert recipe.calibration != "half"
    assert recipe.network.arguments["width"] == 8


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seeds", "--set takes key=value"),
        ("=3", "--set takes key=value"),
        ("seeds=[0", "--set 'seeds=[0': the value is not valid YAML"),
        ("arms.1.members=3", "there is no place 'arms.1.members' in the recipe"),
        ("arms.first.members=3", "there is no place 'arms.first.members'"),
        ("batch.size=3", "there is no place 'batch.size'"),
        ("data.rowz=3", "unknown key data.rowz; did you mean 'rows'?"),
        ("batch=many", "batch: Input should be a valid integer"),
    ],
)
def test_changes_that_do_not_fit(file: Path, change: str, said: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe(file, [change])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1", "is not valid YAML"),
        ("- 1", "holds list; a recipe is a mapping with network, data and arms"),
        ("", "holds NoneType; a recipe is a mapping"),
        ("1: 2", "1: Keys should be strings"),
        ("!!python/object/apply:os.getcwd []", "is not valid YAML"),
    ],
)
def test_files_that_are_no_recipes(tmp_path: Path, text: str, said: str) -> None:
    place = tmp_path / "r.yaml"
    place.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        read_recipe(place)
    assert said in str(caught.value)
    assert str(place) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*: No such file or directory"):
        read_recipe(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*: Is a directory"):
        read_recipe(tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(RecipeError, match="is not valid YAML"):
        read_recipe(tmp_path / "bytes.yaml")
