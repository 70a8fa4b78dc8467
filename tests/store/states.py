"""State dicts in files, and what is read of them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pluria.store import Checkpoint


def assert_read(found: Checkpoint, wanted: dict[str, Tensor]) -> None:
    assert list(found.params) == list(wanted)
    for name, value in wanted.items():
        assert found.params[name].dtype == value.dtype
        assert torch.equal(found.params[name], value)
        assert not found.params[name].requires_grad


def written(tmp_path: Path, what: Any, name: str = "c.pt") -> Path:
    torch.save(what, tmp_path / name)
    return tmp_path / name
