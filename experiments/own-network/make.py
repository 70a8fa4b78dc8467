"""Train the network of my_package with a plain loop and write checkpoint.safetensors and rows.npz beside this file.

This stands for whatever you have already; Pluria has no part in it.
"""

from pathlib import Path

import numpy as np
import torch
from my_package.net import Net
from safetensors.torch import save_file
from sklearn.datasets import load_digits

HERE = Path(__file__).parent


def main() -> None:
    """Train on 600 digits, keep the other 1,197 as labelled rows."""
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images / 16.0, dtype=torch.float32).view(-1, 8, 8)
    y = torch.tensor(labels)
    order = torch.randperm(len(x))
    train, held = order[:600], order[600:]
    net, steps = Net(), 60
    optimiser = torch.optim.Adam(net.parameters(), lr=0.003)
    for _ in range(steps):
        for part in torch.randperm(600).view(-1, 50):
            loss = torch.nn.functional.cross_entropy(net(x[train[part]]), y[train[part]])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    save_file(net.state_dict(), HERE / "checkpoint.safetensors")
    np.savez(HERE / "rows.npz", x=x[held].numpy(), y=y[held].numpy())


if __name__ == "__main__":
    main()
