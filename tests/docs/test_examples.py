"""Every example of the documentation runs, page by page, in an empty folder."""

from __future__ import annotations

import doctest
import importlib
import shlex
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from safetensors.torch import save_file

from docs.pages import Block, Command, blocks, commands
from pluria.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
OWN = ROOT / "experiments" / "own-network"
"""What the README takes as the reader's own."""

COMPARED = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    names: dict[str, Any] = {"__name__": "page"}
    with own_modules(tmp_path):
        if page.name == "README.md":
            lay_out(tmp_path)
        for block in blocks(page.read_text(encoding="utf-8")):
            if block.runs:
                run(block, page.name, names, monkeypatch, capsys)


def test_the_test_can_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    page = (
        "```python\nx = 1\n```\n"
        "```python\n1 / 0\n```\n"
        "```pycon\n>>> 1 + 1\n3\n```\n"
        "```console\n$ pluria methods --nonsense\n```\n"
        "```console\n$ pluria methods --json\nsomething else\n```\n"
    )
    good, *bad = blocks(page)
    run(good, "page", {}, monkeypatch, capsys)
    for block in bad:
        with pytest.raises((AssertionError, ZeroDivisionError, doctest.DocTestFailure)):
            run(block, "page", {}, monkeypatch, capsys)


def test_blocks_are_found() -> None:
    page = (
        "```text\nshown\n```\n\n<!-- not run: slow -->\n```python\nboom\n```\n"
        "```yaml\n# file: a.yaml\nx: 1\n```\n"
        "<!-- exit 2 -->\n```console\n$ pluria a \\\n  b\nout\n$ ls\n$ pluria c\n```\n"
        "```sh\nmake\npluria demo\npluria d\n```\n"
    )
    found = blocks(page)
    assert [block.runs for block in found] == [False, False, True, True, True]
    assert (found[2].file, found[3].exit, found[4].exit) == ("a.yaml", 2, 0)
    assert commands(found[3].text) == [Command("pluria a    b", "out\n"), Command("pluria c", "")]
    assert commands(found[4].text) == [Command("pluria d", "")]
    assert [block.line for block in found] == [2, 7, 10, 15, 22]


def lay_out(folder: Path) -> None:
    """The own-network experiment: its package, its recipe with few members, an untrained checkpoint and some rows."""
    shutil.copytree(OWN / "my_package", folder / "my_package")
    recipe = yaml.safe_load((OWN / "recipe.yaml").read_text(encoding="utf-8"))
    arms = [{**arm, "members": 2} for arm in recipe["arms"]]
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "arms": arms, "seeds": [0]}), encoding="utf-8")
    net = importlib.import_module("my_package.net").Net()
    save_file(net.state_dict(), folder / "checkpoint.safetensors")
    generator = np.random.default_rng(0)
    x = generator.random((80, 8, 8), dtype=np.float32)
    np.savez(folder / "rows.npz", x=x, y=generator.integers(0, 10, 80))


def run(
    block: Block,
    page: str,
    names: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Do with a block what its kind says."""
    if block.file is not None:
        Path(block.file).write_text(block.text, encoding="utf-8")
        importlib.invalidate_caches()
    elif block.kind == "python":
        # Empty lines in front, so that a traceback gives lines of the page.
        exec(compile("\n" * (block.line - 1) + block.text, page, "exec"), names)
    elif block.kind == "pycon":
        test = doctest.DocTestParser().get_doctest(block.text, names, page, page, block.line - 1)
        test.globs = names
        doctest.DebugRunner(optionflags=COMPARED).run(test, clear_globs=False)
    else:
        for command in commands(block.text):
            check(command, block, page, monkeypatch, capsys)


def check(
    command: Command, block: Block, page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run one command in this process; its exit code, and where the page shows its output that too, are as written."""
    monkeypatch.setattr(sys, "argv", shlex.split(command.words, comments=True))
    capsys.readouterr()
    code = exit_code()
    out, err = capsys.readouterr()
    where = f"{page}, line {block.line}: {command.words}"
    assert code == block.exit, f"{where}\n{out}{err}"
    if command.printed.strip():
        seen = err if block.exit else out
        assert doctest.OutputChecker().check_output(command.printed, seen, COMPARED), f"{where}\n{seen}"


def exit_code() -> int:
    """What the command line ends with."""
    try:
        main()
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


@contextmanager
def own_modules(folder: Path) -> Iterator[None]:
    """Modules that a page wrote can be imported in it, and are forgotten after it."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None)).startswith(str(folder)):
                del sys.modules[name]
