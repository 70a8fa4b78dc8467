"""What a merge reads: never written over, hashed as a whole, and told in the manifest."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pluria import Merge, PluriaError, merge_files
from pluria.core.adapter import LowRank
from pluria.merge import engine
from pluria.recipe.merging import files as merging
from pluria.recipe.merging import held as holding
from pluria.recipe.merging.adapters import onto_base, write_adapter
from pluria.recipe.merging.held import merge_held
from pluria.store import shards
from pluria.store.peft import write_peft
from pluria.store.receiving import work_folder
from recipe.merging.files import digest

HALVES = {"matrix": [[0.5, 0.5], [0.5, 0.5]]}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A base, two models, tables for them, two adapters and texts."""
    monkeypatch.chdir(tmp_path)
    draw = torch.Generator().manual_seed(0)
    for name in ("base", "a", "b", "table-a", "table-b"):
        save_file({"l.weight": torch.rand(4, 3, generator=draw)}, f"{name}.safetensors")
    for name in ("one", "two"):
        write_peft({"l.weight": LowRank(torch.ones(4, 1), torch.rand(1, 3, generator=draw))}, name)
    for name in ("new", "sea", "land"):
        (tmp_path / f"{name}.txt").write_text(f"{name} and waves\n")
    for folder in ("A", "B"):
        (tmp_path / folder).mkdir()
        save_file({"l.weight": torch.rand(4, 3, generator=draw)}, f"{folder}/model.safetensors")
    return tmp_path


TABLES = {"statistics": ["table-a.safetensors", "table-b.safetensors"]}
MODELS = ("a.safetensors", "b.safetensors")
TEXTS = {"texts": "new.txt", "domains": ["sea.txt", "land.txt"]}
WRITES: dict[str, Callable[[], Any]] = {
    "table": lambda: merge_files(Merge("fisher", MODELS, options=TABLES), "table-a.safetensors"),
    "adapter": lambda: merge_files(
        onto_base(Merge("add_adapters", ("one", "two"), "base.safetensors")), "one/adapter_model.safetensors"
    ),
    "texts": lambda: merge_files(
        onto_base(Merge("adapted", ("one", "two"), "base.safetensors", options=TEXTS)), "new.txt"
    ),
    "mix": lambda: merge_held(Merge("mix", ("A", "B"), options=HALVES), "A", overwrite=True),
    "held": lambda: merge_held(Merge("amortised", MODELS), "a.safetensors"),
    "base": lambda: merge_held(Merge("amortised", MODELS, "base.safetensors"), "base.safetensors"),
    "sum": lambda: write_adapter(Merge("sum_adapters", ("one", "two")), Path("one"), overwrite=True),
    "holder": lambda: write_adapter(Merge("sum_adapters", ("one", "two")), Path(), overwrite=True),
}


@pytest.mark.parametrize("name", WRITES)
def test_nothing_that_is_read_is_written_over(name: str, here: Path) -> None:
    before = {path: digest(path) for path in here.rglob("*") if path.is_file()}
    with pytest.raises(PluriaError, match="or one holds the other; name another place"):
        WRITES[name]()
    assert {path: digest(path) for path in here.rglob("*") if path.is_file()} == before


def test_a_link_to_what_is_read_is_found(here: Path) -> None:
    (here / "link.safetensors").symlink_to(here / "table-b.safetensors")
    with pytest.raises(PluriaError, match=r"link.safetensors is table-b.safetensors"):
        merge_files(Merge("fisher", MODELS, options=TABLES), "link.safetensors")


def change(path: str, old: str, new: str) -> None:
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


CHANGES: dict[str, Callable[[], None]] = {
    "configuration": lambda: change("one/adapter_config.json", '"lora_alpha": 1', '"lora_alpha": 3'),
    "texts": lambda: change("new.txt", "new", "land"),
    "domain": lambda: change("sea.txt", "waves", "whales"),
}


@pytest.mark.parametrize("name", [*CHANGES, "nothing"])
def test_an_interrupted_merge_of_adapters_begins_anew_where_an_input_changed(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge, out = onto_base(Merge("adapted", ("one", "two"), "base.safetensors", options=TEXTS)), "out.safetensors"

    def stopped(task: engine.Task, leaves: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    states = []
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(merging, "run", stopped)
            with pytest.raises(KeyboardInterrupt):
                merge_files(merge, out)
        states.append((work_folder(Path(out)) / "state").read_text())
        CHANGES.get(name, lambda: None)()
        CHANGES.pop(name, None)
    assert (states[0] == states[1]) == (name == "nothing")


def test_folders_of_several_models_appear_whole_with_their_manifest(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = Merge("mix", ("A", "B"), options=HALVES)
    merge_held(merge, "round")
    told = json.loads(Path("round/merge.json").read_text())
    assert [model["files"][0]["sha256"] for model in told["models"]] == [
        digest(Path(f"{folder}/model.safetensors")) for folder in "AB"
    ]
    assert told["run"] == {"rows_sha256": [], "align": None, "repair": False}
    Path("round/old.txt").write_text("of an earlier round")
    before = digest(Path("round/member-0000.safetensors"))

    def broken(ensemble: Any, folder: Path) -> None:
        save_file({"w": torch.ones(1)}, folder / "member-0000.safetensors")
        raise RuntimeError("killed between two members")

    with monkeypatch.context() as patch:
        patch.setattr(holding, "export_members", broken)
        with pytest.raises(RuntimeError, match="between two members"):
            merge_held(merge, "round", overwrite=True)
    assert digest(Path("round/member-0000.safetensors")) == before
    merge_held(merge, "round", overwrite=True)
    assert sorted(path.name for path in Path("round").iterdir()) == [
        "member-0000.safetensors", "member-0001.safetensors", "members.json", "merge.json",
    ]  # fmt: skip
    assert not list(here.glob(".*"))


def test_an_adapter_says_where_it_came_from(here: Path) -> None:
    write_adapter(Merge("sum_adapters", ("one", "two"), options={"weights": [1, 2]}), Path("both"))
    told: Mapping[str, Any] = json.loads(Path("both/merge.json").read_text())
    assert (told["method"], told["options"]) == ("sum_adapters", {"weights": [1, 2]})
    assert [file["sha256"] for file in told["models"][0]["files"]] == [
        digest(Path("one") / name) for name in ("adapter_config.json", "adapter_model.safetensors")
    ]
    write_adapter(Merge("extract_adapter", ("a.safetensors",), "base.safetensors", options={"rank": 1}), Path("off"))
    assert json.loads(Path("off/merge.json").read_text())["base"]["path"] == "base.safetensors"


def test_an_old_folder_comes_back_after_a_kill_between_two_renames(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in "AB":
        (here / folder / "config.json").write_text("{}")
    merge, out = Merge("linear", ("A", "B")), Path("out")
    out.mkdir()
    (out / "mine.txt").write_text("old")
    rename, count = shards.os.replace, [0]

    def killed(source: Any, target: Any) -> None:
        count[0] += 1
        if count[0] > 1:
            raise KeyboardInterrupt
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(shards.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            merge_files(merge, out, overwrite=True)
    assert not out.exists()
    with monkeypatch.context() as patch:
        patch.setattr(merging, "run", lambda *a, **o: (_ for _ in ()).throw(RuntimeError("no luck")))
        with pytest.raises(RuntimeError, match="no luck"):
            merge_files(merge, out, overwrite=True)
    assert (out / "mine.txt").read_text() == "old"
    merge_files(merge, out, overwrite=True)
    assert set(load_file(out / "model.safetensors")) == {"l.weight"}
    assert not list(here.glob(".*"))
