"""Texts of ten domains: two files of verse and names, and what comes with Python itself."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import platform
from pathlib import Path

SIZE = 80_000
"""Characters of a domain at most."""


def learned(folder: Path) -> dict[str, str]:
    """Six domains that adapters are trained on, by name; `folder` holds tinyshakespeare.txt and names.txt."""
    plays, idle = (folder / "tinyshakespeare.txt").read_text(), _package("idlelib")
    made = {
        "plays": plays,
        "names": (folder / "names.txt").read_text(),
        "code": _joined(_package("asyncio").glob("*.py")),
        "manual": "\n".join(importlib.import_module("pydoc_data.topics").topics.values()),
        "markup": (idle / "help.html").read_text(encoding="utf-8"),
        "news": (idle / "NEWS.txt").read_text(encoding="utf-8"),
    }
    return {name: text[:SIZE] for name, text in made.items()}


def unseen(folder: Path) -> dict[str, str]:
    """Four domains that none was trained on: one each that is close to plays, code and news, and one between them."""
    made = {
        "later plays": (folder / "tinyshakespeare.txt").read_text()[-SIZE:],
        "other code": _joined(_package("email").glob("*.py")),
        "old change log": (_package("idlelib") / "ChangeLog").read_text(encoding="utf-8"),
        "docstrings": "\n".join(_docstrings(_package("statistics").parent / name) for name in DOCUMENTED),
    }
    return {name: text[:SIZE] for name, text in made.items()}


DOCUMENTED = ("statistics.py", "_pydecimal.py", "fractions.py", "random.py", "turtle.py")


def version() -> str:
    """Whose standard library it is."""
    return f"Python {platform.python_version()}"


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent if found.submodule_search_locations else Path(found.origin)


def _joined(files: object) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(files))  # type: ignore[call-overload]


def _docstrings(path: Path) -> str:
    """All docstrings of a module, and nothing of its code."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    nodes = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, kinds)]
    return "\n\n".join(filter(None, map(ast.get_docstring, nodes)))
