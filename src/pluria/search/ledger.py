"""How many forwards a search may spend, and what it has spent them on.

    one forward = one network over as many examples as there are calibration rows

It is counted in examples, whatever they are for: outputs of members, statistics that are refreshed, moments for error
feedback, checks. What a killed search had done before is counted once.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Ledger:
    """Examples that may go through networks (`limit`), those of one forward (`unit`), and those spent, by purpose."""

    limit: int
    unit: int
    spent: dict[str, int] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """Examples that have gone through a network."""
        return sum(self.spent.values())

    @property
    def left(self) -> int:
        """Examples that still may."""
        return self.limit - self.rows

    @property
    def forwards(self) -> float:
        """What is spent, in forwards."""
        return self.rows / self.unit

    def spend(self, what: str, rows: int) -> None:
        """Count examples before they are run; OverflowError where they are more than is left."""
        if rows > self.left:
            raise OverflowError(f"{what} would take {rows} examples, and {self.left} of {self.limit} are left")
        if rows:
            self.spent[what] = self.spent.get(what, 0) + rows
