"""The GPU's benchmarks end well without a GPU, and their figures are figures of what they name."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_clock, gpu_linear, gpu_rounding
from pluria.predict.kernels.product import Tiles

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu_linear", "gpu_rounding"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, so it would be measured")
def test_without_a_gpu(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("no GPU: nothing is measured.")


def test_ways_take_turns() -> None:
    order: list[str] = []
    ways = {name: lambda name=name: order.append(name) for name in ("a", "b")}  # type: ignore[misc]
    times = gpu_clock.interleaved(ways, repeats=2, device=CPU)
    assert order == ["a", "b"] * 3
    assert all(t.best <= t.median <= t.worst for t in times.values())


@pytest.mark.parametrize("shared", [True, False])
def test_rows_of_the_linear_layer(shared: bool) -> None:
    rows = gpu_linear.measure((8, 16), 3, shared, 8, 1, [Tiles(outputs=16, inputs=16)], CPU)
    names = [row.name for row in rows]
    assert names == ["one model", "K linear", "bmm", "planes 16x16x16 w8 s2", "drawn 16x16x16 w8 s2"]
    assert rows[0].models == 1.0
    assert gpu_linear.table(rows).row_count == 5
    assert len(gpu_linear.tiles(quick=True)) == 1 < len(gpu_linear.tiles(quick=False))


def test_a_wrong_product_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_linear, "product", lambda operand, x, tiles: 1.1 * gpu_linear.reference(operand, x))
    with pytest.raises(AssertionError, match="the product is wrong by"):
        gpu_linear.measure((8, 16), 3, True, 8, 1, [Tiles()], CPU)


def test_rows_of_rounding(device: torch.device) -> None:
    rows = gpu_rounding.measure(5 * gpu_rounding.INPUTS, 1, "int4", torch.bfloat16, device)
    assert [row.name for row in rows] == ["plain torch", "kernel", "copy"]
    assert rows[-1].copy == 1.0
    assert gpu_rounding.table(rows).row_count == 3


def test_a_wrong_member_is_seen(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_rounding, "fused", lambda weight, grid, out: out.copy_(weight))
    with pytest.raises(AssertionError, match="not the CPU's"):
        gpu_rounding.measure(gpu_rounding.INPUTS, 1, "int4", torch.float32, device)
