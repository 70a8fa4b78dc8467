"""Handwritten digits of scikit-learn: 1,797 grey images of 8 x 8 pixels in ten classes, valued 0..16.

Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI repository.
"""

from collections.abc import Sequence

import numpy as np
import torch

from pluria.core.errors import DataError
from pluria.zoo.dataset import Dataset
from pluria.zoo.lookup import choose

_SPLITS = {"train": slice(0, 1000), "test": slice(1000, None), "all": slice(None)}


def digits(*, split: str = "test", mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)) -> Dataset:
    """Images uint8 `[N, 1, 8, 8]`, divided by 16 when normalised: `train` 1,000 rows, `test` the other 797, or `all`.

    The file goes writer by writer, so the two splits hold different hands. Needs scikit-learn; DataError without it.
    """
    rows = choose(_SPLITS, split, what="split of digits")
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError("the digits come with scikit-learn, which is missing: pip install scikit-learn") from None
    images, targets = load_digits(return_X_y=True)
    return Dataset(
        inputs=torch.from_numpy(images.reshape(-1, 1, 8, 8).astype(np.uint8))[rows],
        targets=torch.from_numpy(targets.astype(np.int64))[rows],
        classes=tuple("0123456789"),
        name=f"digits {split}",
        scale=16.0,
        mean=tuple(mean),
        std=tuple(std),
    )
