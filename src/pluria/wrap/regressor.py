"""A scikit-learn regressor: a network, low-precision members of it, their mean and how sure it is.

mean = sum_k w_k f(params_k, x)      std^2 = noise + sum_k w_k (f(params_k, x) - mean)^2
noise = max(0, mean over rows held out of (y - mean)^2 - spread)          for each target
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pluria.numbers.coupling import Coupling
from pluria.numbers.grid import Granularity
from pluria.sample.rounding import Formats
from pluria.wrap.estimator import LEAST, Estimator, Rows, in_batches
from pluria.wrap.scikit import RegressorMixin
from pluria.wrap.small import moments, squared_error, untrained
from pluria.zoo.fit import descend


class PluriaRegressor(RegressorMixin, Estimator):  # type: ignore[misc]
    """Numbers by the mean of low-precision members of one network, with a standard deviation.

    network      None: `fit` trains a multilayer perceptron on standardised features and targets. A torch network with
                 outputs `[N]` or `[N, T]`: it is taken as it is, ALREADY TRAINED; `fit` draws members and measures the
                 noise on all its rows, and trains nothing. Give `fit` rows that the network was not trained on
    calibration  share of the rows that is held out of training to measure the noise; where fewer than 20 would be, it
                 is measured on the training rows, and too small

    The other parameters, and `sample_weight`, are those of PluriaClassifier; the noise is not weighted. Targets may be
    `[N]` or `[N, T]`. After `fit`: `noise_` (a variance for each target), `network_`, `ensemble_`, `module_`,
    `training_rows_`, `calibration_rows_`, `n_features_in_`.
    """

    def __init__(
        self,
        network: nn.Module | None = None,
        *,
        hidden: Sequence[int] = (64, 64),
        epochs: int = 100,
        batch: int = 32,
        rate: float = 0.003,
        weight_decay: float = 0.0,
        format: Formats | None = "int5",
        members: int = 8,
        coupling: Coupling = "stratified",
        granularity: Granularity = "channel",
        key: int = 0,
        calibration: float = 0.2,
        random_state: Any = None,
    ) -> None:
        self.network = network
        self.hidden = hidden
        self.epochs = epochs
        self.batch = batch
        self.rate = rate
        self.weight_decay = weight_decay
        self.format = format
        self.members = members
        self.coupling = coupling
        self.granularity = granularity
        self.key = key
        self.calibration = calibration
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> PluriaRegressor:
        """Train where no network was given, draw the members, measure the noise on the rows held out.

        Raises ValueError for bad rows or options, and where a given network has another number of outputs than targets.
        """
        rows = self._rows(X, y, sample_weight, multi_output=True, y_numeric=True)
        self._flat = rows.y.ndim == 1
        targets = torch.from_numpy(rows.y.astype(np.float64).reshape(len(rows.y), -1))
        seed = self._seed()
        training, held = self._split(rows, np.zeros(len(targets)), seed)
        network = self._trained(rows, targets, training, seed) if self.network is None else self.network
        self._settle(network, rows, training, held, "output")
        self._measure(rows, targets, held if len(held) >= LEAST else np.arange(len(targets)))
        return self

    def predict(self, X: Any, return_std: bool = False) -> Any:
        """The mean `[N]` or `[N, T]`; with `return_std` also the standard deviation, of the same shape."""
        mean, spread = self._moments(self._checked(X))
        shape = (len(mean),) if self._flat else tuple(mean.shape)
        answer = mean.reshape(shape).numpy()
        if not return_std:
            return answer
        noise = torch.from_numpy(np.atleast_1d(self.noise_))
        return answer, (spread + noise).sqrt().reshape(shape).numpy()

    def predict_members(self, X: Any) -> NDArray[np.float64]:
        """What every member predicts, `[K, N]` or `[K, N, T]`."""
        outputs = in_batches(self._outputs, self._checked(X), axis=1)
        return (outputs[..., 0] if self._flat else outputs).numpy()

    def __sklearn_tags__(self) -> Any:
        """Several targets are taken."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _outputs(self, x: Tensor) -> Tensor:
        """Members' outputs `[K, N, T]` in float64."""
        outputs = self.module_.members(x).to(torch.float64)
        return outputs[..., None] if outputs.ndim == 2 else outputs

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance over the members, `[N, T]`."""
        outputs = in_batches(self._outputs, x, axis=1)
        weights = self.ensemble_.weights[:, None, None]
        mean = (weights * outputs).sum(0)
        return mean, (weights * (outputs - mean).square()).sum(0)

    def _trained(self, rows: Rows, targets: Tensor, training: NDArray[np.int64], seed: int) -> nn.Module:
        chosen = torch.from_numpy(training)
        x, y, weights = rows.x[chosen], targets[chosen], rows.weights[chosen]
        back = moments(y, weights)
        start = untrained(moments(x, weights), y.shape[1], hidden=tuple(self.hidden), seed=seed, undo=back)
        return descend(
            start, squared_error(x, y, weights, back[1]), examples=len(x), epochs=self.epochs, batch=self.batch,
            rate=self.rate, seed=seed, weight_decay=self.weight_decay,
        )  # fmt: skip

    def _measure(self, rows: Rows, targets: Tensor, held: NDArray[np.int64]) -> None:
        chosen = torch.from_numpy(held)
        mean, spread = self._moments(rows.x[chosen])
        if mean.shape != targets[chosen].shape:
            raise ValueError(f"the network has {mean.shape[1]} outputs, and y has {targets.shape[1]} targets")
        noise = ((targets[chosen] - mean).square() - spread).mean(0).clamp(min=0.0).numpy()
        self.noise_ = float(noise[0]) if self._flat else noise
