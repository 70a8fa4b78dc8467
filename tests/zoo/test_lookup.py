import pytest

from pluria.zoo.lookup import call, choose


def area(width: int, *, height: int = 2) -> int:
    if height < 0:
        raise TypeError("height is negative")
    return width * height


TABLE = {"area": area}


def test_the_entry_of_a_name() -> None:
    assert choose(TABLE, "area", what="shape") is area
    assert call(TABLE, "area", {"width": 3, "height": 4}, what="shape") == 12


def test_an_unknown_name_is_answered_with_the_nearest_or_with_all() -> None:
    with pytest.raises(ValueError, match=r"no shape is called 'aera'; did you mean 'area'\? There are: area"):
        choose(TABLE, "aera", what="shape")
    with pytest.raises(ValueError, match=r"no shape is called 'xyz'\. There are: area"):
        choose(TABLE, "xyz", what="shape")


@pytest.mark.parametrize("arguments", [{}, {"width": 1, "hight": 2}])
def test_arguments_are_held_against_the_signature(arguments: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"shape 'area': .*; it accepts width, height=2"):
        call(TABLE, "area", arguments, what="shape")


def test_errors_from_inside_pass_unchanged() -> None:
    with pytest.raises(TypeError, match="height is negative"):
        call(TABLE, "area", {"width": 1, "height": -1}, what="shape")
