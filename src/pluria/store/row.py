"""Numbers of members as a file has them: a list, or how many where they are 0, 1, ... and many.

A list of a thousand would take more room than all else that members of one base add to it.
"""

from __future__ import annotations

from typing import Any

from pluria.core.errors import FileFormatError

SHORT, MOST = 64, 10_000_000
"""More members in a row than the first are written as their number, which is read up to the second."""


def written(members: tuple[int, ...]) -> int | list[int]:
    """What a file says of these members."""
    many = len(members) > SHORT and members == tuple(range(len(members)))
    return len(members) if many else list(members)


def counted(data: Any, where: str) -> Any:
    """The list that a number stands for; anything else as it is. Raises FileFormatError for a number out of range."""
    if type(data) is not int:
        return data
    if not SHORT < data <= MOST:
        raise FileFormatError(f"{where} is {data}; a number of members in a row lies in {SHORT + 1}..{MOST}")
    return list(range(data))
