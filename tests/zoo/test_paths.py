from pathlib import Path

import pytest

from pluria.core.errors import DataError
from pluria.zoo.paths import contents, first_present, present


def test_what_is_there_is_returned(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.touch()
    assert present(str(file), wanted="records") == file
    assert first_present([tmp_path / "b.bin", file], wanted="records") == file


def test_a_missing_path_says_what_was_wanted_and_what_lies_there(tmp_path: Path) -> None:
    (tmp_path / "other.txt").touch()
    with pytest.raises(DataError, match=r"looked for records at .*gone/a\.bin, .* holds other\.txt"):
        present(tmp_path / "gone" / "a.bin", wanted="records")
    with pytest.raises(DataError, match=r"looked for records as a\.bin or b\.bin in .* holds other\.txt"):
        first_present([tmp_path / "a.bin", tmp_path / "b.bin"], wanted="records")


def test_long_and_empty_folders_are_told_in_short(tmp_path: Path) -> None:
    assert contents(tmp_path).endswith("holds nothing")
    for i in range(11):
        (tmp_path / f"f{i:02d}").touch()
    assert contents(tmp_path).endswith("f06, f07 and 3 more")
    assert contents(Path("nowhere/at/all")).startswith(str(Path.cwd()))
