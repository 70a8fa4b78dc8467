"""A request that is not answered, and why, in the words of HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

NONE: Mapping[str, str] = MappingProxyType({})
CLOSE: Mapping[str, str] = MappingProxyType({"connection": "close"})
"""For a request whose body was not read to its end: what is left of it is no next request."""


class Refused(Exception):
    """The answer is a status and a reason: what was given, what was wanted.

    400 no request  404 no such page  405 another method  408 too slow  413 too large  415 another type
    422 a request whose inputs do not fit  500 a fault of the service  503 too many wait  504 no answer in time
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] = NONE) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, headers
