"""torch-uncertainty's deep ensemble, one turn whenever a line comes in: the other side of `prediction.py`.

python -m benchmarks.uncertainty NETWORK ROWS MEMBERS THREADS     in an environment of its own
"""

from __future__ import annotations

import copy
import importlib.metadata
import sys
import time

import torch
from torch import Tensor, nn

from benchmarks.networks import case

KEPT: list[torch.library.Library] = []
"""What is defined lives as long as its library."""


class Logits(nn.Module):
    """A network whose answer is a tensor: the only kind that torch-uncertainty joins."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        answer = self.model(x)
        return answer if isinstance(answer, Tensor) else answer.logits


def load_torchvision() -> None:
    """torch-uncertainty imports it; its CUDA wheel lacks two operators beside a torch for CPUs. They are not used."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        for held in [one for one in sys.modules if one.split(".")[0] == "torchvision"]:
            del sys.modules[held]
        KEPT.append(torch.library.Library("torchvision", "FRAGMENT"))
        for operator in ("nms", "qnms"):
            KEPT[0].define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def main(name: str, rows: int, members: int, threads: int) -> None:
    """Say the versions, then seconds of the wall and of the processor for each line read."""
    load_torchvision()
    from torch_uncertainty.methods.deep_ensembles import deep_ensembles

    torch.set_num_threads(threads)
    found = case(name, rows)
    model = deep_ensembles([Logits(copy.deepcopy(found.model)) for _ in range(members)]).eval()
    print(f"torch-uncertainty {importlib.metadata.version('torch-uncertainty')}, torch {torch.__version__}", flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        with torch.no_grad():
            for batch in found.batches:
                model(batch)
        print(time.perf_counter() - wall, time.process_time() - cpu, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
