"""Run as a script in a process of its own: prints by how many bytes it grows at most while members are made."""

import sys

import torch
from torch import nn

from pluria.sample import gptq


def most() -> int:
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def main(follow: str) -> int:
    torch.set_num_threads(1)
    inputs = [torch.randn(64, 512)]
    small = nn.Sequential(*(nn.Linear(512, 512) for _ in range(2)))
    gptq(small, inputs, follow=follow)  # what is loaded with the first call
    # Narrow outputs: weights take little, moments of the wide inputs 2 MB each.
    model = nn.Sequential(*(nn.Linear(*((512, 8), (8, 512))[i % 2]) for i in range(48)))
    before = most()
    gptq(model, inputs, follow=follow, damping=1.0)
    return most() - before


if __name__ == "__main__":
    print(main(sys.argv[1]))
