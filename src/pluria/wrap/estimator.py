"""What classifier and regressor share: rows that are held out, the ensemble of the network, answers in batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pluria.core.ensemble import Ensemble, single
from pluria.core.params import params_of
from pluria.sample.rounding import low_precision
from pluria.wrap.module import EnsembleModule
from pluria.wrap.scikit import BaseEstimator

LEAST = 20
"""Fewest rows that a temperature or a noise is fitted on."""

BATCH = 1024
"""Rows of one forward when predicting."""


@dataclass(frozen=True)
class Rows:
    """Checked training data: x `[N, ...]`, weights `[N]` positive with the mean one, numbers of the rows as given."""

    x: Tensor
    y: NDArray[Any]
    weights: Tensor
    numbers: NDArray[np.int64]


class Estimator(BaseEstimator):  # type: ignore[misc]
    """Parameters and steps that do not depend on what is predicted."""

    network: nn.Module | None
    module_: EnsembleModule

    def _rows(self, X: Any, y: Any, sample_weight: Any, **checks: Any) -> Rows:
        """Rows of positive weight; a row of weight zero counts as one that is not there."""
        from sklearn.utils.validation import _check_sample_weight, validate_data

        if self.network is not None and not isinstance(self.network, nn.Module):
            raise TypeError(
                f"network is a trained torch.nn.Module, or None to fit one; got {type(self.network).__name__}"
            )
        if not 0 <= self.calibration < 1:
            raise ValueError(f"calibration is a share of the rows, from 0 to below 1; got {self.calibration!r}")
        X, y = validate_data(self, X, y, **self._taken(), **checks)
        weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        numbers = np.flatnonzero(weights)
        if not len(numbers):
            raise ValueError("sample_weight is zero for every row, so there is nothing to fit on")
        kept = weights[numbers] / weights[numbers].mean()
        return Rows(
            torch.from_numpy(np.require(X[numbers], requirements=("C", "W"))), np.asarray(y)[numbers],
            torch.from_numpy(kept), numbers,
        )  # fmt: skip

    def _taken(self) -> dict[str, Any]:
        """Rows of features in float64 for a network that is fitted; for one that is given, float32 of any shape."""
        own = self.network is None
        return {"dtype": np.float64 if own else np.float32, "allow_nd": not own}

    def _seed(self) -> int:
        from sklearn.utils import check_random_state

        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _split(self, rows: Rows, groups: NDArray[Any], seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Positions of training rows and of held-out rows; a network that is given trains on none.

        Of each group, its share of rows rounded down is held out. Where all that is fewer than LEAST, none is.
        """
        everything = np.arange(len(groups))
        if self.network is not None:
            return everything[:0], everything if self.calibration else everything[:0]
        order = np.random.RandomState(seed).permutation(len(groups))
        parts = [order[groups[order] == group] for group in np.unique(groups)]
        held = np.sort(np.concatenate([part[: int(self.calibration * len(part))] for part in parts]))
        held = held if len(held) >= LEAST else held[:0]
        return np.setdiff1d(everything, held), held

    def _draw(self, network: nn.Module) -> Ensemble:
        if self.format is None:
            return single(params_of(network))
        return low_precision(
            network, format=self.format, members=self.members, coupling=self.coupling, granularity=self.granularity,
            key=self.key,
        )  # fmt: skip

    def _settle(self, network: nn.Module, rows: Rows, training: NDArray[Any], held: NDArray[Any], pool: str) -> None:
        self.network_ = network
        self.ensemble_ = self._draw(network)
        self.module_ = EnsembleModule(network, self.ensemble_, pool=pool)
        self.training_rows_, self.calibration_rows_ = rows.numbers[training], rows.numbers[held]

    def _checked(self, X: Any) -> Tensor:
        from sklearn.utils.validation import check_is_fitted, validate_data

        check_is_fitted(self)
        X = validate_data(self, X, **self._taken(), reset=False)
        return torch.from_numpy(np.require(X, requirements=("C", "W")))


def in_batches(answer: Callable[[Tensor], Tensor], x: Tensor, *, axis: int) -> Tensor:
    """`answer` of the rows of x, BATCH at a time, end to end along its `axis` of examples."""
    return torch.cat([answer(part) for part in torch.split(x, BATCH)], dim=axis)
