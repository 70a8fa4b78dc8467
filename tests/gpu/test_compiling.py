"""Triton's compiler takes the kernels, with divisions that round correctly and products on tensor cores."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("compiling.py")


@pytest.fixture(scope="module")
def held() -> dict[str, dict[str, int]]:
    """What the machine code of each kernel holds, for an H100 and an A100, neither of which has to be there."""
    pytest.importorskip("triton", reason="compiling GPU kernels needs Triton; `make triton` installs it")
    # In its own process alone: what Triton imports while the variable is missing is compiled from then on.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, str(SCRIPT), "90", "80"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, dict[str, int]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_every_variant_is_assembled(held: dict[str, dict[str, int]]) -> None:
    assert len(held) == 8
    assert min(row["bytes"] for row in held.values()) > 0


def test_nothing_is_approximate(held: dict[str, dict[str, int]]) -> None:
    """Bits are kept: no fast division, no subnormal taken for zero; scales and words are not fused into sums."""
    for name, row in held.items():
        assert row["div.full"] == row["div.approx"] == row[".ftz"] == 0, name
        assert ("stored" in name) == (row["div.rn.f32"] == 0), name
        assert row["fma.rn"] == 0, name


def test_products_run_on_tensor_cores(held: dict[str, dict[str, int]]) -> None:
    for name, row in held.items():
        assert (row["mma"] > 0) == name.startswith("multiply"), name


def test_tiles_fit_into_shared_memory(held: dict[str, dict[str, int]]) -> None:
    assert max(row["shared"] for row in held.values()) <= 99 * 1024
