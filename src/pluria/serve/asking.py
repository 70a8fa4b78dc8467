"""What a request asks for besides its inputs, by its query: `?members=1&stream=1&stop=0.01&window=3`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pluria.serve.refused import Refused
from pluria.serve.stopping import Rule

KNOWN = ("members", "stream", "stop", "window")


@dataclass(frozen=True)
class Asking:
    """Options of a request: every member's probabilities, an answer after each member, a rule that stops early."""

    members: bool = False
    stream: bool = False
    rule: Rule | None = None


def asking(query: Mapping[str, str]) -> Asking:
    """The options of a query; refused with 400 where one is unknown or has no such value."""
    if unknown := sorted(set(query) - set(KNOWN)):
        raise Refused(400, f"the query has {', '.join(map(repr, unknown))}; known are {', '.join(KNOWN)}")
    if "window" in query and "stop" not in query:
        raise Refused(400, "the query has 'window' without 'stop', the tolerance in probability, such as stop=0.01")
    return Asking(_switch(query, "members"), _switch(query, "stream"), _rule(query) if "stop" in query else None)


def _switch(query: Mapping[str, str], name: str) -> bool:
    if (given := query.get(name, "0")) not in ("0", "1"):
        raise Refused(400, f"{name} is 0 or 1; got {given!r}")
    return given == "1"


def _rule(query: Mapping[str, str]) -> Rule:
    try:
        tolerance = float(query["stop"])
        return Rule(tolerance, int(query["window"])) if "window" in query else Rule(tolerance)
    except ValueError:
        raise Refused(
            400,
            f"stop is a tolerance in probability, 0 to 1, and window a number of members from 1; got "
            f"stop={query['stop']!r}, window={query.get('window', '3')!r}",
        ) from None
