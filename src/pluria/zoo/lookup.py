"""Written tables read by name: unknown names are answered with the nearest one, wrong arguments with the accepted."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")


def choose(table: Mapping[str, T], name: str, *, what: str) -> T:
    """The entry of a table under `name`; ValueError with the nearest name where there is none.

    >>> choose({"relu": 1, "swish": 2}, "swich", what="activation")
    Traceback (most recent call last):
    ...
    ValueError: no activation is called 'swich'; did you mean 'swish'? There are: relu, swish
    """
    if name in table:
        return table[name]
    nearest = difflib.get_close_matches(str(name), table, n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    raise ValueError(f"no {what} is called {name!r}{hint} There are: {', '.join(table)}")


def call(table: Mapping[str, Callable[..., T]], name: str, arguments: Mapping[str, Any], *, what: str) -> T:
    """Call the function of a table with arguments that are first held against its signature.

    ValueError names what the function accepts; errors from inside the function pass through unchanged.
    """
    function = choose(table, name, what=what)
    signature = inspect.signature(function)
    try:
        signature.bind(**arguments)
    except TypeError as error:
        accepted = ", ".join(_shown(parameter) for parameter in signature.parameters.values())
        raise ValueError(f"{what} {name!r}: {error}; it accepts {accepted}") from None
    return function(**arguments)


def _shown(parameter: inspect.Parameter) -> str:
    required = parameter.default is inspect.Parameter.empty
    return parameter.name if required else f"{parameter.name}={parameter.default!r}"
