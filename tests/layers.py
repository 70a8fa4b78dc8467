"""Reads the imports of a source tree and finds what breaks the order of its layers."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

VERBS = ("sample", "train", "align", "merge", "predict", "pool", "score", "store", "zoo")
USES = ("check", "search", "serve", "wrap")
ORDER: tuple[tuple[str, ...], ...] = (
    ("numbers",),
    ("core",),
    VERBS,
    ("language",),
    ("recipe",),
    ("report",),
    USES,
    ("cli",),
)
LEVEL = {name: level for level, names in enumerate(ORDER) for name in names}
LONGEST = 300

Graph = Mapping[str, frozenset[str]]
"""Each module of the package to the modules of the package that it imports."""


def module_name(path: Path, root: Path) -> str:
    """`pluria.core.params` of src/pluria/core/params.py, `pluria.core` of its __init__.py."""
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def graph_of(root: Path) -> Graph:
    """All imports inside the package at `root`, wherever they stand in a file."""
    files = {module_name(path, root): path for path in sorted(root.rglob("*.py"))}
    return {name: frozenset(_imports(name, path, files)) - {name} for name, path in files.items()}


def violations(graph: Graph) -> list[str]:
    """Imports that go up or sideways, and layers nobody has heard of; the top-level facade may import anything."""
    found = []
    for name, targets in sorted(graph.items()):
        own = _layer(name)
        if own is None:
            continue
        if own not in LEVEL:
            found.append(f"{name}: {own} is no layer")
            continue
        for target in sorted(targets):
            other = _layer(target)
            if other is None:
                found.append(f"{name} imports the facade {target}")
            elif other != own and LEVEL.get(other, len(ORDER)) >= LEVEL[own]:
                found.append(f"{name} imports {target}")
    return found


def cycle(graph: Graph) -> list[str]:
    """Modules that import each other in a ring; empty where there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def long_files(root: Path) -> list[str]:
    """Files of more than 300 lines."""
    sizes = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in sorted(root.rglob("*.py"))}
    return [f"{path.name} has {size} lines" for path, size in sizes.items() if size > LONGEST]


def _layer(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else None


def _imports(name: str, path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    top = name.split(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            whole = ".".join(filter(None, (base, node.module or "")))
            # What is imported from a package may be one of its modules.
            wanted = [f"{whole}.{alias.name}" if f"{whole}.{alias.name}" in files else whole for alias in node.names]
        else:
            continue
        yield from (target for target in wanted if target.split(".")[0] == top)
