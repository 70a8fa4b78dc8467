"""Files merged by stored statistics of data: the bits of memory, their hashes, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from pluria import Merge, PluriaError, leafwise, merge_files, stack
from pluria.merge import fisher, regmean
from pluria.merge.rule import Rules
from pluria.recipe.merging.files import rule_of
from recipe.merging.files import digest, params, write


def fishers(seed: int) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {n: torch.rand(v.shape, generator=draw) for n, v in params(seed).items() if v.is_floating_point()}


def grams(seed: int) -> dict[str, Tensor]:
    inputs = torch.randn(20, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return {"emb": (inputs.T @ inputs + torch.eye(9))[None]}


METHODS = {"fisher": (fishers, fisher), "regmean": (grams, regmean)}


def tables(folder: Path, method: str) -> list[str]:
    """Files of statistics for models 1 and 2."""
    paths = [str(folder / f"{method}-{seed}.safetensors") for seed in (1, 2)]
    for seed, path in zip((1, 2), paths, strict=True):
        save_file(METHODS[method][0](seed), path)
    return paths


@pytest.mark.parametrize("method", METHODS)
def test_the_bits_are_those_of_memory_and_the_hashes_are_told(method: str, tmp_path: Path) -> None:
    models, out, paths = write(tmp_path)[1:], tmp_path / "out.safetensors", tables(tmp_path, method)
    merge_files(Merge(method, tuple(models), weights=(1, 2), options={"statistics": paths}), out, threads=3)
    make, rule = METHODS[method]
    held: Rules = rule([make(1), make(2)])
    found: Mapping[str, Tensor] = load_file(out)
    for name, value in leafwise(stack([params(1), params(2)]).reweight(torch.tensor([1.0, 2.0])), held).items():
        assert torch.equal(found[name], value), name
    with safe_open(out, "pt") as file:
        told = json.loads(file.metadata()["merge"])["statistics"]
    assert told == [
        {"file": Path(path).name, "bytes": Path(path).stat().st_size, "sha256": digest(Path(path))} for path in paths
    ]


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    models, out, paths = write(tmp_path)[1:], tmp_path / "out.safetensors", tables(tmp_path, "fisher")
    with pytest.raises(PluriaError, match="fisher needs the option 'statistics'"):
        rule_of("fisher", {})
    with pytest.raises(ValueError, match="takes 1 models; got 2"):
        merge_files(Merge("fisher", tuple(models), options={"statistics": paths[:1]}), out)
    with pytest.raises(PluriaError, match="'str' instances are not allowed"):
        rule_of("fisher", {"statistics": paths[0]})
    Path(paths[0]).write_bytes(b"no tensors")
    with pytest.raises(PluriaError, match="not a safetensors file"):
        rule_of("fisher", {"statistics": paths})
    assert not out.exists()
