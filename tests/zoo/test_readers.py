from pathlib import Path

import numpy as np
import pytest

from pluria.core.errors import DataError
from pluria.zoo.dataset import Dataset
from pluria.zoo.readers import READERS, read


def test_the_table_is_sorted_and_names_its_functions() -> None:
    assert list(READERS) == sorted(READERS)
    assert all(name == reader.__name__ for name, reader in READERS.items())


def test_reading_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3)), y=np.array([0, 1]))
    assert isinstance(read("arrays", path=tmp_path / "d.npz"), Dataset)


def test_a_typo_and_a_wrong_argument() -> None:
    with pytest.raises(ValueError, match=r"no reader is called 'digit'; did you mean 'digits'\?"):
        read("digit")
    with pytest.raises(ValueError, match=r"reader 'cifar10': .*'spilt'.* accepts path, split='test', mean="):
        read("cifar10", path="x", spilt="test")
    with pytest.raises(ValueError, match="missing a required argument: 'path'"):
        read("idx")


@pytest.mark.parametrize("name", sorted(set(READERS) - {"digits"}))
def test_a_missing_path_is_a_data_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="looked for"):
        read(name, path=tmp_path / "gone")
