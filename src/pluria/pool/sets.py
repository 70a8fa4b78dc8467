"""Prediction sets: for each example the classes that hold the right one with a stated probability.

    lac     {c : 1 - p_c <= q}                                   s = 1 - p_y
    aps     classes by falling p, up to the first that passes q  s = sum of p down to y, less u p_y, u uniform
    raps    the same with a price on each class beyond `free`    s + penalty max(rank of y - free, 0)
    q       the k-th smallest score s of the fitting rows        k = ceil((N + 1) level)

For exchangeable rows a set holds the right class with probability at least `level`, whatever the probabilities are: on
average over examples, not for each of them. `lac` gives the smallest sets, and may give empty ones; `aps` gives larger
ones where the answer is less sure; `raps` cuts their tails, with a price and a free number that are chosen on a fifth
of the rows. The scores, the price and q come from MAPIE. Sources: Sadinle, Lei and Wasserman, JASA 2019; Romano, Sesia
and Candès, NeurIPS 2020; Angelopoulos, Bates, Jordan and Malik, ICLR 2021.
"""

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from pluria.pool.rows import check_classes
from pluria.pool.temperature import checked_rows

Method = Literal["lac", "aps", "raps"]


@dataclass(frozen=True)
class PredictionSets:
    """Fitted sets: calls map pooled log-probabilities (or logits) `[N, ..., C]` to bool `[N, ..., C]`.

    A row with NaN knows nothing, and gets every class. Sets need no library any more. Plain data, through JSON as well.

    >>> PredictionSets("lac", 0.9, threshold=0.75, classes=3)(torch.tensor([[0.6, 0.3, 0.1]]).log())
    tensor([[ True,  True, False]])
    """

    method: Method
    level: float
    threshold: float
    classes: int
    penalty: float = 0.0
    free: float = 0.0

    def __post_init__(self) -> None:
        if self.method not in get_args(Method) or not 0 < self.level < 1:
            raise ValueError(f"method lac, aps or raps and 0 < level < 1 are wanted; got {self.method!r}, {self.level}")

    def __call__(self, log_probs: Tensor) -> Tensor:
        """Which classes each set holds."""
        check_classes(log_probs, self.classes)
        probs = log_probs.to(torch.float64).softmax(-1)
        if self.method == "lac":
            return (1 - probs <= self.threshold) | probs.isnan()
        ordered = probs.sort(-1, descending=True).values
        ranks = torch.arange(1, self.classes + 1, dtype=torch.float64, device=probs.device)
        reached = ordered.cumsum(-1) + self.penalty * (ranks - self.free).clamp_min(0)
        # The first class that passes the threshold is the last one taken: the score gave it a random part of its own.
        last = (reached <= self.threshold).sum(-1, keepdim=True).clamp_max(self.classes - 1)
        return (probs >= ordered.gather(-1, last)) | probs.isnan()


def fit_prediction_sets(
    log_probs: Tensor, y: Tensor, *, level: float = 0.9, method: Method = "aps", seed: int = 0, ignore_index: int = -100
) -> PredictionSets:
    """The sets of that `level` for pooled `log_probs` `[N, ..., C]` (or logits) at classes `y` `[N, ...]`.

    Fit them last, on rows that fitted neither pool nor temperature and that give no figure. `seed` draws the random
    parts of `aps` and `raps`. Rows whose target is `ignore_index` do not count. Needs the extra `sklearn`.
    Raises ValueError for a level outside (0, 1), fewer than 1 / (1 - level) rows (for `raps` five times that, and two
    of each class), two classes with another method than `lac`, and what `fit_temperature` refuses; ImportError without
    MAPIE.
    """
    if method not in get_args(Method) or not 0 < level < 1:
        raise ValueError(f"method lac, aps or raps and 0 < level < 1 are wanted; got {method!r} and {level}")
    rows, targets = checked_rows(log_probs, y, ignore_index)
    _check_counts(torch.bincount(targets), level, method)
    score = _conformalised(rows.softmax(-1), targets, level, method, seed)
    fitted = PredictionSets(method, level, float(score.quantiles_.reshape(-1)[0]), rows.shape[-1])
    if method != "raps":
        return fitted
    return replace(fitted, penalty=float(score.lambda_star), free=float(score.k_star.reshape(-1)[0]))


def _check_counts(counts: Tensor, level: float, method: Method) -> None:
    """Raise ValueError where the rows of the classes are too few; what MAPIE asks for, in words of this function."""
    counts = counts[counts > 0]
    if method != "lac" and len(counts) < 3:
        raise ValueError(f"{method} needs targets of three classes or more; use method='lac'")
    # 1 / (1 - 0.9) is 10.000000000000002 and must ask for 10 rows.
    wanted = math.ceil(1 / (1 - level) - 1e-6)
    if method == "raps":  # a fifth of the rows is set aside, with a row of each class
        wanted = 5 * max(wanted, len(counts))
    if (given := int(counts.sum())) < wanted:
        raise ValueError(f"{method} sets of level {level} need {wanted} labelled rows, or more; got {given}")
    if method == "raps" and int(counts.min()) < 2:
        raise ValueError("raps needs two rows or more of every class that has one; use method='aps'")


def _conformalised(probs: Tensor, targets: Tensor, level: float, method: Method, seed: int) -> Any:
    """MAPIE's conformity score, with its quantile found."""
    try:
        from mapie.classification import SplitConformalClassifier
        from mapie.conformity_scores import APSConformityScore, LACConformityScore, RAPSConformityScore
    except ImportError as error:
        raise ImportError("prediction sets need MAPIE: pip install 'pluria[sklearn]'") from error
    score = {"lac": LACConformityScore, "aps": APSConformityScore, "raps": RAPSConformityScore}[method]()
    rows, labels = probs.cpu().numpy(), targets.cpu().numpy()
    held = SplitConformalClassifier(
        _given(rows.shape[1]), confidence_level=level, conformity_score=score, random_state=seed
    )
    with warnings.catch_warnings():
        # A class without a row is no mistake here: its sets are as good as the others'.
        warnings.filterwarnings("ignore", "WARNING: your conformalization dataset has less labels", UserWarning)
        held.conformalize(rows, labels)
    held.predict_set(rows[:1])  # the quantile is found when a set is asked for
    return score


def _given(classes: int) -> Any:
    """A classifier whose inputs are its answers."""
    import numpy as np
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Given(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
        classes_ = np.arange(classes)
        n_features_in_ = classes

        def fit(self, rows: Any, labels: Any) -> Any:
            return self

        def predict(self, rows: Any) -> Any:
            return rows.argmax(1)

        def predict_proba(self, rows: Any) -> Any:
            return rows

    return Given()
