"""The examples of a page: fenced blocks, taken in order, and what is done with each.

python    run in the page's namespace                       pycon    a session, its output compared
console   lines `$ pluria ...` are run; the lines after a command, where there are any, are compared with what it prints
any       a first line `# file: NAME` writes the block to NAME and does not run it
text ...  shown only

`<!-- not run: reason -->` before a block leaves it out; `<!-- exit 2 -->` says how its commands end, and what they
print on stderr is compared. In what is compared `...` stands for anything, and white space does not count.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

FENCE = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*?) -->\n+)?^(?P<ticks>```+)(?P<kind>[\w-]+)\n(?P<text>.*?)^(?P=ticks)$", re.S | re.M
)
FILE = re.compile(r"# file: (\S+)\n")
COSTLY = ("demo", "experiments/")
"""Commands that name the demo or an experiment take minutes; tests of their own run them."""

RUN = ("python", "pycon", "console", "sh", "bash")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, text and first line, and what the comment before it says."""

    kind: str
    text: str
    line: int
    note: str

    @property
    def file(self) -> str | None:
        """The file that the block is, if it is one."""
        found = FILE.match(self.text)
        return found[1] if found else None

    @property
    def exit(self) -> int:
        """The exit code its commands should have."""
        return int(self.note.removeprefix("exit ")) if self.note.startswith("exit ") else 0

    @property
    def runs(self) -> bool:
        """Whether something is done with the block."""
        return not self.note.startswith("not run: ") and (self.file is not None or self.kind in RUN)


@dataclass(frozen=True)
class Command:
    """One command of a console block and the lines that it should print; none: anything."""

    words: str
    printed: str


def blocks(page: str) -> list[Block]:
    """All fenced blocks of a page in order."""
    return [
        Block(found["kind"], found["text"], page.count("\n", 0, found.start("text")) + 1, found["note"] or "")
        for found in FENCE.finditer(page)
    ]


def commands(text: str) -> list[Command]:
    """The commands of a console block that are Pluria's own: after `$`, or plain lines where there is no `$`."""
    if not text.startswith("$ "):
        text = "".join(f"$ {line}\n" for line in text.replace("\\\n", " ").splitlines())
    parts = re.split(r"^\$ ", text.replace("\\\n", " "), flags=re.M)[1:]
    split = [part.partition("\n") for part in parts]
    cheap = (part for part in split if not any(word in part[0] for word in COSTLY))
    return [Command(words, printed) for words, _, printed in cheap if words.startswith("pluria ")]
