"""Adapters of PEFT's: what is read is what PEFT itself merges; what is not read is refused by name."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pluria.core.adapter import LowRank
from pluria.core.errors import CheckpointError
from pluria.core.params import params_of
from pluria.merge import add_adapters
from pluria.store import read_peft, write_peft

peft = pytest.importorskip("peft", reason="peft is not installed")


class Net(nn.Module):
    """Two linear layers, one under a name that ends like the other, and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.first = nn.Linear(16, 6)
        self.block = nn.ModuleDict({"first": nn.Linear(6, 5)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block["first"](self.first(self.conv(x).flatten(1)).relu())  # type: ignore[no-any-return]


def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net()


def tuned(seed: int = 1, name: str = "default", model: Any = None, **options: Any) -> Any:
    """PEFT's model with random factors, also in `lora_B`, which is zero at first."""
    held = {"r": 2, "lora_alpha": 3, "target_modules": ["first", "conv"], **options}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if model is None:
            model = peft.get_peft_model(net(), peft.LoraConfig(**held))
        else:
            model.add_adapter(name, peft.LoraConfig(**held))
        for key, value in model.named_parameters():
            if f".{name}." in key and "lora_" in key:
                value.data.normal_()
    return model


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank stabilised": {"use_rslora": True, "r": 4},
    "patterns": {"rank_pattern": {"block.first": 3, "^first": 1}, "alpha_pattern": {"block.first": 7}},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_it_is_what_peft_merges(tmp_path: Path, options: dict[str, Any]) -> None:
    model = tuned(**options)
    model.save_pretrained(tmp_path)
    adapter = read_peft(tmp_path)
    assert sorted(adapter) == ["block.first.weight", "conv.weight", "first.weight"]
    made, theirs = add_adapters(params_of(net()), [adapter]), model.merge_and_unload().state_dict()
    assert set(made) == set(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(made[name], value, rtol=1e-6, atol=1e-6)


def test_inputs_first_is_turned(tmp_path: Path) -> None:
    from transformers.pytorch_utils import Conv1D

    model = nn.Sequential(Conv1D(5, 3))
    made = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=2, target_modules=["0"], fan_in_fan_out=True))
    torch.nn.init.normal_(made.base_model.model[0].lora_B["default"].weight)
    made.save_pretrained(tmp_path)
    ours = add_adapters(params_of(model), [read_peft(tmp_path)])
    torch.testing.assert_close(ours["0.weight"], made.merge_and_unload().state_dict()["0.weight"])


def test_one_minus_itself_is_nothing_where_factors_are_averaged_apart(tmp_path: Path) -> None:
    """PEFT's `linear` adds factors, whose product has cross terms; sums of products have none."""
    model = tuned(target_modules=["first"])
    tuned(2, "other", model, target_modules=["first"])
    model.save_pretrained(tmp_path)
    adapters = [read_peft(tmp_path), read_peft(tmp_path / "other")]
    base = params_of(net())
    wanted = {n: base[n].double() + adapters[0][n].product() - adapters[1][n].product() for n in adapters[0]}
    ours = add_adapters(base, adapters, [1.0, -1.0])
    model.add_weighted_adapter(["default", "other"], [1.0, -1.0], "sum", combination_type="linear")
    model.set_adapter("sum")
    theirs = model.merge_and_unload().state_dict()
    for name, value in wanted.items():
        assert float((ours[name] - value).norm() / value.norm()) < 1e-6
        assert float((theirs[name] - value).norm() / value.norm()) > 0.1


def test_what_is_written_peft_reads(tmp_path: Path) -> None:
    def part(rank: int, rows: int, columns: int) -> LowRank:
        return LowRank(torch.randn(rows, rank), torch.randn(rank, columns), 0.5)

    torch.manual_seed(3)
    adapter = {"first.weight": part(3, 6, 16), "block.first.weight": part(1, 5, 6)}
    write_peft(adapter, tmp_path / "made")
    theirs = peft.PeftModel.from_pretrained(net(), tmp_path / "made").merge_and_unload().state_dict()
    ours, again = (add_adapters(params_of(net()), [a]) for a in (adapter, read_peft(tmp_path / "made")))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(again[name], value, rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="'bias' is none"):
        write_peft({"bias": part(1, 2, 2)}, tmp_path / "odd")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"use_dora": True}, "not read here: use_dora=True"),
        ({"modules_to_save": ["head"]}, r"modules_to_save=\['head'\]"),
        ({"bias": "all"}, "bias='all'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights='pissa'"),
        ({"from_the_future": 1}, "from_the_future=1"),
        ({"peft_type": "IA3"}, "type LORA are read, with their rank r; got 'IA3'"),
        ({"r": 3}, "rank 3 by adapter_config.json"),
    ],
)
def test_what_is_not_read_is_refused_by_name(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    tuned().save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError, match=said):
        read_peft(tmp_path)


def test_odd_tensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no adapter_config\.json"):
        read_peft(tmp_path)
    tuned().save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "base_model.model.head.weight": torch.zeros(2, 2)}, file)
    with pytest.raises(CheckpointError, match=r"'base_model.model.head.weight' is no factor"):
        read_peft(tmp_path)
    save_file({name: value for name, value in tensors.items() if name != "base_model.model.first.lora_A.weight"}, file)
    with pytest.raises(CheckpointError, match="first has one factor of two"):
        read_peft(tmp_path)
    save_file({name: value * torch.nan for name, value in tensors.items()}, file)
    with pytest.raises(CheckpointError, match="NaN"):
        read_peft(tmp_path)
