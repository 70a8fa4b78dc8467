"""A scikit-learn classifier: a network, low-precision members of it, one calibrated answer.

p(y | x) = softmax( log p_bar(x) / T )      p_bar = mean_k softmax f(params_k, x)      T fitted on rows held out
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
from pluria.pool.temperature import fit_temperature
from pluria.sample.rounding import Formats
from pluria.wrap.estimator import LEAST, Estimator, Rows, in_batches
from pluria.wrap.scikit import ClassifierMixin
from pluria.wrap.small import cross_entropy, moments, untrained
from pluria.zoo.fit import descend


class PluriaClassifier(ClassifierMixin, Estimator):  # type: ignore[misc]
    """Classes by the pooled answer of low-precision members of one network.

    network      None: `fit` trains a multilayer perceptron on standardised features. A torch network: it is taken as
                 it is, ALREADY TRAINED; `fit` draws members and calibrates on all its rows, and trains nothing. Give
                 `fit` rows that the network was not trained on
    hidden, epochs, batch, rate, weight_decay   of that training (Adam, a cosine to zero)
    format       number system of the members, as in `low_precision`; None: the network alone, in full precision
    members, coupling, granularity, key         of the ensemble
    pool         "probability" or "logit"
    calibration  share of each class's rows that is held out of training to fit the temperature; 0: no temperature.
                 It is 1 where that would be fewer than 20 rows (none is held out then), or where all of them are right
    classes      labels of a given network's outputs in order; by default the sorted labels that `fit` sees
    random_state  seed of the split, the starting parameters and the order of the rows

    A given network may take rows of more axes; they reach it in float32. `sample_weight` weights the training loss
    and the standardisation, not the temperature; a row of weight zero counts as not given.

    After `fit`: `classes_`, `temperature_`, `network_`, `ensemble_`, `module_` (an EnsembleModule), `training_rows_`
    and `calibration_rows_` (numbers of the rows that were used), `n_features_in_`.
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
        pool: str = "probability",
        calibration: float = 0.2,
        classes: Sequence[Any] | None = None,
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
        self.pool = pool
        self.calibration = calibration
        self.classes = classes
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> PluriaClassifier:
        """Train where no network was given, draw the members, fit the temperature on the rows held out.

        Raises ValueError for bad rows or options, and where a given network has another number of outputs than classes.
        """
        from sklearn.utils.multiclass import check_classification_targets

        if self.pool not in ("probability", "logit"):
            raise ValueError(f"a classifier's pool is 'probability' or 'logit'; got {self.pool!r}")
        rows = self._rows(X, y, sample_weight)
        check_classification_targets(rows.y)
        codes = self._codes(rows.y)
        seed = self._seed()
        training, held = self._split(rows, codes.numpy(), seed)
        network = self._trained(rows, codes, training, seed) if self.network is None else self.network
        self._settle(network, rows, training, held, self.pool)
        self._calibrate(rows, codes, held)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Probabilities `[N, C]`, columns in the order of `classes_`."""
        x = self._checked(X)
        log_probs = in_batches(self.module_, x, axis=0).to(torch.float64)
        return log_probs.softmax(-1).numpy()

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row."""
        best = self.predict_proba(X).argmax(1)
        return self.classes_[best]  # type: ignore[no-any-return]

    def predict_members(self, X: Any) -> NDArray[np.float64]:
        """Probabilities of every member `[K, N, C]`, before pooling and temperature."""
        x = self._checked(X)
        outputs = in_batches(self.module_.members, x, axis=1)
        return outputs.to(torch.float64).softmax(-1).numpy()

    @property
    def temperature_(self) -> float:
        """The temperature of the pooled answer, 1 where none was fitted."""
        fitted = self.module_.temperature
        return 1.0 if fitted is None else fitted.value

    def _codes(self, y: NDArray[Any]) -> Tensor:
        found, codes = np.unique(y, return_inverse=True)
        self.classes_ = found
        if self.classes is not None and self.network is not None:
            self.classes_ = np.asarray(self.classes)
            places = {label: place for place, label in enumerate(self.classes_.tolist())}
            if unknown := [label for label in found.tolist() if label not in places]:
                raise ValueError(f"y holds the labels {unknown[:5]}, which are not among `classes`")
            codes = np.array([places[label] for label in found.tolist()])[codes]
        return torch.from_numpy(codes.astype(np.int64))

    def _trained(self, rows: Rows, codes: Tensor, training: NDArray[np.int64], seed: int) -> nn.Module:
        chosen = torch.from_numpy(training)
        x, y, weights = rows.x[chosen], codes[chosen], rows.weights[chosen]
        start = untrained(moments(x, weights), len(self.classes_), hidden=tuple(self.hidden), seed=seed, undo=None)
        return descend(
            start, cross_entropy(x, y, weights), examples=len(x), epochs=self.epochs, batch=self.batch, rate=self.rate,
            seed=seed, weight_decay=self.weight_decay,
        )  # fmt: skip

    def _calibrate(self, rows: Rows, codes: Tensor, held: NDArray[np.int64]) -> None:
        if self.network is not None:
            outputs = self.module_(rows.x[:1]).shape[-1]
            if outputs != len(self.classes_):
                raise ValueError(
                    f"the network has {outputs} outputs, and y has {len(self.classes_)} classes; "
                    "give the labels of all outputs in order as `classes`"
                )
        if len(held) < LEAST:
            return
        chosen = torch.from_numpy(held)
        fitted = fit_temperature(in_batches(self.module_, rows.x[chosen], axis=0), codes[chosen])
        # Where no row is wrong, the best temperature is none at all, and says nothing about other rows.
        self.module_.temperature = None if fitted.clamped and fitted.value < 1 else fitted
