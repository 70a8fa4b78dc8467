"""Makes the golden files beside it: `python tests/golden/make.py`. Only a new version of the format may change them.

Each NAME.pluria is kept with NAME.members.safetensors: what its members must be, as ensemble/member/tensor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pluria.core.ensemble import Ensemble, join, single, stack
from pluria.core.factored import Factored
from pluria.core.family import Affine, Shared
from pluria.core.gaussian import Gaussian
from pluria.core.masked import masked
from pluria.core.rounded import Rounded
from pluria.numbers.format import number_format
from pluria.numbers.grid import layout
from pluria.numbers.key import Key
from pluria.store import packed, save
from pluria.store.tensors import write_tensors

HERE = Path(__file__).parent
ABOUT = {"classes": ["cat", "dog"], "inputs": {"mean": [0.5], "std": [0.25]}, "pool": "mean_probability"}


def golden() -> dict[str, dict[str, Ensemble]]:
    """The ensembles of each golden file; numbers come from arithmetic that is exact everywhere."""
    base, low = params(1), rounded(params(1))
    uneven = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    return {
        "rounded": {"ensemble": low},
        "families": {
            "one": single(base),
            "kept": stack([base, params(2)]),
            "line": line(base, params(3)),
            "cloud": cloud(base),
            "union": join(low.first(2), stack([base, params(2)]), weights=uneven),
        },
        "thin": {"masked": masks(base), "added": factors(base, "add"), "multiplied": factors(base, "multiply")},
        "packed": {"members": packed(low), "planes": packed(low, form="planes")},
    }


def params(start: int) -> dict[str, Tensor]:
    """Tensors of several dtypes and shapes; `tied` is `integer`."""
    made = {
        "integer": numbers(start, 4, 6),
        "asymmetric": numbers(start + 5, 4, 6),
        "minifloat": numbers(start + 7, 3, 2, 2),
        "normal": numbers(start + 9, 2, 8).to(torch.bfloat16),
        "bias": numbers(start + 3, 4).to(torch.float16),
        "steps": torch.tensor(7 * start),
        "empty": torch.empty(0, 3),
        "mask": numbers(start, 5) > 0,
    }
    return {**made, "tied": made["integer"]}


def rounded(params: dict[str, Tensor]) -> Ensemble:
    """Four members, a number system, granularity and coupling for each tensor."""
    shared = single(params).families
    made = dict(shared)
    rules = {
        "integer": ("int4", "channel", "stratified"),
        "asymmetric": ("int3-asymmetric", 3, "independent"),
        "minifloat": ("fp4-e2m1", "tensor", "antithetic"),
        "normal": ("nf4", 4, "stratified"),
    }
    for name, (system, granularity, coupling) in rules.items():
        where = layout(params[name].shape)
        made[name] = Rounded(shared[name], name, number_format(system), granularity, where, Key(2**63 + 1), coupling)
    return Ensemble({**made, "tied": made["integer"]}, (0, 1, 2, 3))


def line(a: dict[str, Tensor], b: dict[str, Tensor]) -> Ensemble:
    """Three members from a to b and beyond, of the one tensor `integer`."""
    step = (b["integer"] - a["integer"]).to(torch.float64).unsqueeze(0)
    coordinates = torch.tensor([[0.0], [0.5], [1.25]], dtype=torch.float64)
    return Ensemble({"integer": Affine(a["integer"], step, coordinates)}, (0, 1, 2))


def cloud(params: dict[str, Tensor]) -> Ensemble:
    """Two draws with numbers of their own, of the one tensor `integer`."""
    mean = params["integer"]
    family = Gaussian(Shared(mean), numbers(4, 4, 6).abs(), "integer", Key(3), numbers(6, 2, 4, 6))
    return Ensemble({"integer": family}, (5, 11))


def masks(params: dict[str, Tensor]) -> Ensemble:
    """Two members of the tensor `integer` with about half of its elements each."""
    kept = torch.stack([numbers(start, 4, 6) > 0 for start in (2, 3)])
    return Ensemble({"integer": masked(Shared(params["integer"]), kept)}, (0, 1))


def factors(params: dict[str, Tensor], op: Literal["add", "multiply"]) -> Ensemble:
    """Two members of the tensor `minifloat` with factors of rank 2, for whole kernels or for channels alone."""
    columns = 4 if op == "add" else 2
    family = Factored(Shared(params["minifloat"]), numbers(2, 2, 3, 2), numbers(4, 2, 2, columns), op)
    return Ensemble({"minifloat": family}, (0, 1))


def numbers(start: int, *shape: int) -> Tensor:
    """Multiples of 1/64 in [-1, 1), float32."""
    count = torch.Size(shape).numel()
    return (((torch.arange(count) * 37 + start * 29) % 128 - 64) / 64).to(torch.float32).view(shape)


def members(ensembles: dict[str, Ensemble]) -> dict[str, Tensor]:
    """Every tensor of every member."""
    return {
        f"{title}/{member}/{name}": value
        for title, ensemble in ensembles.items()
        for member in ensemble.members
        for name, value in ensemble.params(member).items()
    }


if __name__ == "__main__":
    for title, ensembles in golden().items():
        save(HERE / f"{title}.pluria", ensembles, about=ABOUT)
        write_tensors(HERE / f"{title}.members.safetensors", members(ensembles), {})
