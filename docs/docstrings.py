"""Plain-text docstrings as reStructuredText, without changing their words.

indented block            a literal block: formulas, drawings
name   what it is         a parameter where the signature has it, else an entry of a definition list; more columns than
                          two are a literal block
>>> ...                   a doctest block, as it is
anything else             a paragraph; `code` becomes literal, characters that reStructuredText would read are escaped
"""

import inspect
import re
import textwrap
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

ENTRY = re.compile(r"(\S+(?: \S+)*?) {2,}(\S.*)")
CODE = re.compile(r"`([^`]+)`")


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """The hook of autodoc: rewrite `lines` in place."""
    given = _parameters(obj) if what in ("function", "method", "class") else frozenset()
    lines[:] = [line for block in _blocks(lines) for line in (*_written(block, given), "")]


def _parameters(obj: Any) -> frozenset[str]:
    try:
        return frozenset(inspect.signature(obj).parameters)
    except (TypeError, ValueError):
        return frozenset()


def _blocks(lines: Iterable[str]) -> Iterator[list[str]]:
    """Runs of lines without an empty one between them."""
    return (list(run) for filled, run in groupby(lines, key=lambda line: bool(line.strip())) if filled)


def _written(block: list[str], given: frozenset[str]) -> list[str]:
    if block[0].startswith(">>>"):
        return block
    if block[0].startswith(" "):
        return _literal(block)
    if ENTRY.fullmatch(block[0]) and any(re.search(r"\S {3,}\S", line.split("  ", 1)[-1].lstrip()) for line in block):
        return _literal(block)
    if ENTRY.fullmatch(block[0]):
        return [line for entry in _entries(block) for line in _entry(entry, given)]
    return [_escaped(line.strip()) for line in block]


def _literal(block: list[str]) -> list[str]:
    return [".. code-block:: text", "", *(f"    {line}" for line in textwrap.dedent("\n".join(block)).splitlines())]


def _entries(block: list[str]) -> Iterator[str]:
    """Entries of a list in columns, each with its continuation lines on one line."""
    held = ""
    for line in block:
        if held and not line.startswith(" "):
            yield held
            held = ""
        held = f"{held} {line.strip()}" if held else line
    yield held


def _entry(entry: str, given: frozenset[str]) -> list[str]:
    found = ENTRY.fullmatch(entry)
    if found is None:
        return [_escaped(entry), ""]
    names, text = found[1].split(", "), _escaped(found[2])
    if given.issuperset(names):
        return [f":param {name}: {text}" for name in names]
    return [_escaped(found[1]) if " " in names[0] else f"``{found[1]}``", f"    {text}", ""]


def _escaped(text: str) -> str:
    """Code in backticks as literals; what else has a meaning in reStructuredText as itself."""
    parts = CODE.split(text)
    plain = (re.sub(r"([\\*|_])", r"\\\1", part) for part in parts[::2])
    code = (f"``{part}``" for part in parts[1::2])
    return "".join(part for pair in zip(plain, (*code, ""), strict=True) for part in pair)
