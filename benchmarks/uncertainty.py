"""torch-uncertainty's deep ensemble, one turn whenever a line comes in: the other side of `prediction.py`.

python -m benchmarks.uncertainty NETWORK ROWS MEMBERS THREADS     in an environment of its own
"""

from __future__ import annotations

import copy
import importlib.metadata
import sys
import time

import torch

from benchmarks.networks import case


def main(name: str, rows: int, members: int, threads: int) -> None:
    """Say the versions, then a line of seconds for each line read."""
    from torch_uncertainty.models import deep_ensembles

    torch.set_num_threads(threads)
    found = case(name, rows)
    model = deep_ensembles([copy.deepcopy(found.model) for _ in range(members)]).eval()
    print(f"torch-uncertainty {importlib.metadata.version('torch-uncertainty')}, torch {torch.__version__}", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        with torch.no_grad():
            for batch in found.batches:
                model(batch)
        print(time.perf_counter() - start, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
