"""A recipe names its back end; what auto chose is kept, so that a run that goes on repeats the bits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pluria.core.ensemble import Ensemble
from pluria.core.errors import RecipeError
from pluria.predict import Choice
from pluria.recipe import backends
from pluria.recipe.run import run
from recipe.finished import ARMS, Stop, asked, kept


def test_what_auto_chose_is_kept_and_repeated(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: list[object] = []

    def by_size(model: object, ensemble: Ensemble, batches: object, **options: object) -> Choice:
        asked_for.append(options["views"])
        return Choice("bfloat16", 3) if len(ensemble) == 3 else Choice("channels_last")

    monkeypatch.setattr(backends, "choose_backend", by_size)
    recipe, whole, part = asked(done, arms=ARMS, seeds=[0], backend="auto"), tmp_path / "whole", tmp_path / "part"
    run(recipe, whole)
    chosen = json.loads((whole / "backends.json").read_text())
    assert {one["backend"] for one in chosen.values()} == {"bfloat16", "channels_last"}
    part.mkdir()
    with pytest.raises(KeyboardInterrupt):
        run(recipe, part, progress=Stop(2))
    before = len(asked_for)
    assert json.loads((part / "backends.json").read_text()) == chosen
    run(recipe, part)
    assert len(asked_for) == before
    assert kept(part) == kept(whole)
    assert kept(whole) != {name: kept(done / "out")[name] for name in kept(whole)}


def test_a_back_end_by_name_is_one_way_of_predicting(done: Path, out: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"different: backend\)"):
        run(asked(done, backend="bfloat16"), out)
    run(asked(done, arms=ARMS[:1], seeds=[0], backend="channels_last"), tmp_path / "named")
    assert not (tmp_path / "named" / "backends.json").exists()


@pytest.mark.parametrize("more", [{"dtype": "bfloat16"}, {"channels_last": True}])
def test_a_back_end_that_sets_dtype_and_order_takes_neither(done: Path, more: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match="'auto' keeps its own dtype and order"):
        asked(done, backend="auto", **more)
