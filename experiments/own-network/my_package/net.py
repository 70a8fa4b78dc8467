"""A network that Pluria knows nothing about: one-dimensional convolutions, batch norm, a class of its own."""

from torch import Tensor, nn


class Net(nn.Module):
    """Rows of pixels as channels of a signal, `[N, 8, 8]` -> logits `[N, classes]`."""

    def __init__(self, width: int = 32, classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv1d(8, width, 3, padding=1),
            nn.BatchNorm1d(width),
            nn.ReLU(),
            nn.Conv1d(width, width, 3, padding=1),
            nn.BatchNorm1d(width),
            nn.ReLU(),
        )
        self.head = nn.Linear(8 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).flatten(1))
