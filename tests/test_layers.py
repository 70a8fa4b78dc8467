"""The layers: numbers < core < {verbs} < recipe < report < cli; siblings never import each other; no cycles."""

from pathlib import Path

import pytest

from layers import cycle, graph_of, long_files, violations

SOURCE = Path(__file__).resolve().parents[1] / "src" / "pluria"


def test_imports_go_down() -> None:
    assert violations(graph_of(SOURCE)) == []


def test_no_cycles() -> None:
    assert cycle(graph_of(SOURCE)) == []


def test_no_long_files() -> None:
    assert long_files(SOURCE) == []


def test_the_graph_is_read() -> None:
    graph = graph_of(SOURCE)
    assert "pluria.core.family" in graph["pluria.core.rounded"]
    assert "pluria.numbers.grid" in graph["pluria.core.rounded"]
    assert "pluria.numbers.kernel" in graph["pluria.numbers.rounding"]  # written as `from pluria.numbers import kernel`
    assert len(graph) > 40


def package(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"__init__.py": "", **files}.items():
        path = root / "made_up" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root / "made_up"


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"core/a.py": "import torch\nfrom made_up.numbers.key import Key"}, []),
        ({"core/a.py": "from made_up.sample.b import c"}, ["made_up.core.a imports made_up.sample.b"]),
        ({"core/a.py": "import made_up.recipe.b as b"}, ["made_up.core.a imports made_up.recipe.b"]),
        ({"sample/a.py": "def f():\n    from made_up.pool import b"}, ["made_up.sample.a imports made_up.pool"]),
        ({"sample/a.py": "from ..pool.b import c", "pool/b.py": ""}, ["made_up.sample.a imports made_up.pool.b"]),
        ({"sample/a.py": "from . import b", "sample/b.py": ""}, []),
        ({"sample/__init__.py": "from .a import b", "sample/a.py": ""}, []),
        ({"sample/__init__.py": "from ..score import a"}, ["made_up.sample imports made_up.score"]),
        ({"helpers/a.py": ""}, ["made_up.helpers.a: helpers is no layer"]),
        ({"core/a.py": "import made_up"}, ["made_up.core.a imports the facade made_up"]),
        ({"cli.py": "from made_up.report.a import b\nfrom made_up.core import c"}, []),
        ({"report/a.py": "from made_up.cli import b"}, ["made_up.report.a imports made_up.cli"]),
        ({"__init__.py": "from made_up.cli import a\nfrom made_up.core.b import c"}, []),
    ],
)
def test_what_breaks_the_order_is_caught(tmp_path: Path, files: dict[str, str], wanted: list[str]) -> None:
    assert violations(graph_of(package(tmp_path, files))) == wanted


def test_a_cycle_is_caught(tmp_path: Path) -> None:
    ring = {"core/a.py": "from made_up.core import b", "core/b.py": "def f():\n    from made_up.core.a import g"}
    assert set(cycle(graph_of(package(tmp_path, ring)))) == {"made_up.core.a", "made_up.core.b"}
    assert cycle(graph_of(package(tmp_path, {"core/b.py": ""}))) == []


def test_a_long_file_is_caught(tmp_path: Path) -> None:
    root = package(tmp_path, {"core/a.py": "x = 1\n" * 301, "core/b.py": "x = 1\n" * 300})
    assert long_files(root) == ["a.py has 301 lines"]
