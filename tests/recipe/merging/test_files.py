"""Files to one file: the same bits as in memory, whatever the form of the sources, the threads and the hash seed."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pluria import CheckpointError, Merge, PluriaError, leafwise, merge_files, stack
from pluria.core.params import Params
from pluria.merge import Rule
from pluria.recipe.catalogue import methods
from pluria.recipe.merging import files as merging
from pluria.store.receiving import work_folder
from recipe.merging.files import digest, params, start, write

RULES = [row for row in methods("merge") if row.maker]
LEAFWISE = [row for row in RULES if not {"statistics", "adapters"} & set(row.options())]


def equal(one: Params, other: Params) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("row", LEAFWISE, ids=lambda row: row.name)
def test_every_method_gives_the_bits_of_memory(row: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pluria.merge.pieces.BLOCK", 5000)
    models, out = write(tmp_path), tmp_path / "out.safetensors"
    rule = merging.rule_of(row.name, {}, 5)
    starts = isinstance(rule, Rule) and rule.needs_base
    merge = Merge(row.name, tuple(models[1:]), models[0] if starts else None, weights=(1, 2), seed=5)
    merge_files(merge, out, threads=3)
    ensemble = stack([params(1), params(2)]).reweight(torch.tensor([1.0, 2.0]))
    assert equal(load_file(out), leafwise(ensemble, rule, base=params(0) if starts else None))


def test_every_form_of_a_checkpoint_gives_the_same_bits(tmp_path: Path) -> None:
    write(tmp_path)
    for seed in range(3):
        torch.save({"state_dict": {f"module.{n}": v for n, v in params(seed).items()}}, tmp_path / f"{seed}.pt")
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    names = list(params(1))
    for part, own in enumerate((names[::2], names[1::2])):
        save_file({name: params(1)[name] for name in own}, sharded / f"{part}.safetensors")
    places = {name: f"{i % 2}.safetensors" for i, name in enumerate(names)}
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    forms = [("0.safetensors", "1.safetensors"), ("0.pt", "1.pt"), ("0.safetensors", "sharded"), ("0.pt", "sharded")]
    made = []
    for form in forms:
        out = tmp_path / "out.safetensors"
        merge_files(Merge("linear", tuple(str(tmp_path / name) for name in form)), out)
        made.append(load_file(out))
    assert all(equal(made[0], other) for other in made[1:])


def test_threads_processes_and_hash_seeds_change_no_byte(tmp_path: Path) -> None:
    models, out = write(tmp_path), tmp_path / "out.safetensors"
    seen = set()
    for threads, seed in ((1, "0"), (2, "1"), (5, "2")):
        done = start(out, models, method="dare", threads=threads, env={**os.environ, "PYTHONHASHSEED": seed})
        said = done.communicate()[1]
        assert done.returncode == 0, said
        seen.add(digest(out))
    assert len(seen) == 1


def test_the_manifest_names_every_source_with_its_hash(tmp_path: Path) -> None:
    models, out = write(tmp_path), tmp_path / "out.safetensors"
    merge_files(Merge("task_arithmetic", tuple(models[1:]), models[0], options={"scale": 0.5}), out)
    with safe_open(out, "pt") as file:
        told = json.loads(file.metadata()["merge"])
    assert (told["method"], told["options"], told["weights"]) == ("task_arithmetic", {"scale": 0.5}, None)
    for said, path in zip([*told["models"], told["base"]], [*models[1:], models[0]], strict=True):
        content = Path(path).read_bytes()
        assert said["path"] == path
        own = {"file": Path(path).name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert said["files"] == [own]


def test_tied_names_of_torch_files_are_merged_once_and_written_under_both(tmp_path: Path) -> None:
    for seed in range(2):
        own = torch.full((40,), float(seed))
        torch.save({"a": own, "b": own, "c": own.clone()}, tmp_path / f"{seed}.pt")
    both = Merge("dare", (str(tmp_path / "1.pt"),), str(tmp_path / "0.pt"), options={"density": 0.5})
    merge_files(both, tmp_path / "out.safetensors")
    made = load_file(tmp_path / "out.safetensors")
    # Masks go by name: what is merged apart differs.
    assert torch.equal(made["a"], made["b"])
    assert not torch.equal(made["a"], made["c"])


def test_what_it_costs_is_told_before_anything_is_written(tmp_path: Path) -> None:
    models, out = write(tmp_path), tmp_path / "out.safetensors"
    before = sorted(tmp_path.iterdir())
    told: list[Any] = []

    def look(cost: Any) -> None:
        told.append(cost)
        assert sorted(tmp_path.iterdir()) == before

    merge_files(Merge("linear", tuple(models)), out, told=look, threads=2, dry_run=True)
    assert sorted(tmp_path.iterdir()) == before
    merge_files(Merge("linear", tuple(models)), out, told=look, threads=2)
    size = sum(value.nbytes for value in params(0).values())
    assert told[0] == told[1] or told[0].free != told[1].free
    assert (told[0].read, told[0].written, told[0].models, told[0].readings) == (3 * size, size, 3, 1)
    assert told[0].memory == 2 * 6 * 2**17 * 4
    assert not work_folder(out).exists()


def test_another_dtype_is_written_where_it_is_asked_for(tmp_path: Path) -> None:
    models, out = write(tmp_path), tmp_path / "out.safetensors"
    merge_files(Merge("linear", tuple(models), dtype="float32"), out)
    wide = leafwise(stack([params(seed) for seed in range(3)]), merging.rule_of("linear", {}), dtype=torch.float32)
    assert equal(load_file(out), wide)


def broken(folder: Path, **changes: Tensor | None) -> str:
    """A model with tensors replaced, or (None) left out."""
    held = {name.replace("__", "."): value for name, value in changes.items()}
    made = {name: value for name, value in {**params(1), **held}.items() if value is not None}
    save_file(made, folder / "broken.safetensors")
    return str(folder / "broken.safetensors")


MISTAKES: dict[str, tuple[dict[str, Tensor | None], dict[str, Any], str]] = {
    "shape": ({"emb": torch.zeros(70, 8).bfloat16()}, {}, r"1 of different shapes \(emb \(70, 9\) and \(70, 8\)\)"),
    "missing": ({"emb": None}, {}, r"1 only in 0.safetensors \(emb\). Give"),
    "unknown": ({"more": torch.zeros(2).bfloat16()}, {}, r"1 only in broken.safetensors \(more\)"),
    "dtype": ({"emb": torch.zeros(70, 9)}, {}, "'emb' is bfloat16 in .*0.safetensors, float32 in .*Give the `dtype`"),
    "kind": ({"emb": torch.zeros(70, 9).long()}, {}, "'emb' is of several kinds"),
    "counts": ({"bn__num_batches_tracked": None}, {}, r"1 only in 0.safetensors \(bn.num_batches_tracked\)"),
    "NaN": ({"emb": torch.full((70, 9), torch.nan).bfloat16()}, {}, "NaN or Inf in tensor 'emb' of .*broken"),
    "Inf": ({"layers__1__norm": torch.full((300,), torch.inf).bfloat16()}, {}, "tensor 'layers.1.norm' of .*broken"),
    "quantised": ({"emb__qweight": torch.zeros(2, 2).int()}, {}, "quantised already"),
    "no base": ({}, {"method": "task_arithmetic"}, "starts from a base"),
    "method": ({}, {"method": "linar"}, "no method 'linar' merges files; did you mean 'linear'"),
    "option": ({}, {"options": {"density": 1}}, "linear has no option 'density'; it has none"),
    "members": ({}, {"method": "slerp", "models": ("0.safetensors",)}, "takes 2 models; got 1"),
    "weights": ({}, {"weights": (1, 2, 3)}, "2 models need 2 weights"),
    "negative": ({}, {"weights": (1, -2)}, "not negative"),
    "zero": ({}, {"weights": (0, 0)}, "not all zero"),
    "no dtype": ({}, {"dtype": "int8"}, "a dtype is one of .*got 'int8'"),
    "overflow": ({"emb": torch.full((70, 9), 1e30).bfloat16()}, {"dtype": "float16"}, "'emb': .*does not fit into"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named_and_the_old_output_stays(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes, given, message = MISTAKES[name]
    write(tmp_path, 1)
    broken(tmp_path, **changes)
    Path("out.safetensors").write_text("old")
    merge = {"method": "linear", "models": ("0.safetensors", "broken.safetensors"), **given}
    with pytest.raises((PluriaError, ValueError), match=message):
        merge_files(Merge(**merge), "out.safetensors")
    assert Path("out.safetensors").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0.safetensors",
        "broken.safetensors",
        "out.safetensors",
    ]


@pytest.mark.parametrize("out", ["0.safetensors", "link.safetensors", ".", "new/out.safetensors", "folder.safetensors"])
def test_a_target_that_is_a_source_or_cannot_be(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    models = [Path(path).name for path in write(tmp_path, 2)]
    Path("link.safetensors").symlink_to("0.safetensors")
    Path("folder.safetensors").mkdir()
    before = digest(Path("0.safetensors"))
    with pytest.raises(PluriaError, match=r"one holds the other|make it first|is a folder"):
        merge_files(Merge("linear", tuple(models)), out)
    assert digest(Path("0.safetensors")) == before


def test_a_source_that_changes_meanwhile_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models, out = write(tmp_path), tmp_path / "out.safetensors"
    whole = merging.run

    def meddle(*arguments: Any, **options: Any) -> None:
        whole(*arguments, **options)
        os.utime(models[1])

    monkeypatch.setattr(merging, "run", meddle)
    with pytest.raises(CheckpointError, match="changed while it was merged"):
        merge_files(Merge("linear", tuple(models)), out)
    assert not out.exists()


def test_nothing_to_merge_and_no_threads(tmp_path: Path) -> None:
    models = write(tmp_path, 1)
    with pytest.raises(ValueError, match="give one model or more"):
        merge_files(Merge("linear", ()), tmp_path / "out.safetensors")
    with pytest.raises(ValueError, match="threads are one or more; got 0"):
        merge_files(Merge("linear", tuple(models)), tmp_path / "out.safetensors", threads=0)


def test_a_saved_ensemble_is_no_checkpoint(tmp_path: Path) -> None:
    import pluria

    pluria.save(tmp_path / "e.pluria", pluria.single({"w": torch.ones(2)}))
    with pytest.raises(CheckpointError, match="this is a saved ensemble"):
        merge_files(Merge("linear", (str(tmp_path / "e.pluria"),)), tmp_path / "out.safetensors")


@pytest.mark.parametrize(
    ("method", "options"),
    [("ties", {"density": 1e-9}), ("dare", {"density": 1e-9}), ("breadcrumbs", {"density": 1e-9, "gamma": 0.5})],
)
def test_a_trim_that_keeps_next_to_nothing(method: str, options: dict[str, Any], tmp_path: Path) -> None:
    """At most an element of each tensor moves, and every number is that of the base or finite."""
    models, out = write(tmp_path, dtype=torch.float32), tmp_path / "out.safetensors"
    merge_files(Merge(method, tuple(models[1:]), models[0], options=options), out)
    base = params(0, torch.float32)
    for name, value in load_file(out).items():
        assert bool(value.isfinite().all())
        assert int((value != base[name]).sum()) <= (0 if method == "dare" else 2), name


def test_a_small_disk_that_is_full_leaves_the_old_output(tmp_path: Path) -> None:
    """On a file system of its own, which is as large as it says."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("this user may not mount a small file system")
    try:
        models, out = write(tmp_path, dtype=torch.float32), disk / "out.safetensors"
        out.write_text("old")
        (disk / "full").write_bytes(bytes(10**6))
        with pytest.raises(OSError, match=r"MB and .* are free; nothing was written") as error:
            merge_files(Merge("linear", tuple(models)), out)
        assert error.value.errno == errno.ENOSPC
        assert sorted(path.name for path in disk.iterdir()) == ["full", "out.safetensors"]
        assert out.read_text() == "old"
    finally:
        subprocess.run(["umount", disk], check=True)
