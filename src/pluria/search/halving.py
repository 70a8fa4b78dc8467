"""Successive halving: many kinds with few members on few rows, then the better half with more, at last a few with all.

    look     1      2      3            forwards that are left are shared evenly by the looks that are left
    rows     1/8    1/3    all
    members  K/4    K/2    K            at least two, where K is

Kinds go on in the order of their best NLL within the budgets, the better half at most, as far as a look's share
reaches. Where it does not reach for a kind in full, fewer of its members are taken. A kind whose outputs are all there,
such as a company of networks that were looked at alone, costs nothing and is looked at whatever its place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pluria.recipe.plan import Job, is_plain
from pluria.recipe.pools import CHOICE, Pool
from pluria.search.judge import Candidate, judged, sized
from pluria.search.members import Members

SHARES = (1 / 8, 1 / 3, 1.0)
PARTS = (4, 2, 1)
"""What part of its members a kind has at each look."""


@dataclass(frozen=True)
class Look:
    """What one look took, and who was judged on it."""

    rows: int
    kinds: int
    left_out: int
    candidates: tuple[Candidate, ...]


def halved(
    members: Members,
    kinds: Sequence[Job],
    pools: Sequence[Pool],
    *,
    reserve: int,
    most: float | None,
    within: int | None = None,
) -> list[Look]:
    """What every look found; `reserve` examples are not touched, `most` bits and `within` forwards are allowed.

    Full precision is looked at every time, for everything is held against it. Larger kinds than `within` go on to
    the last look, for a cascade may ask few of their members.
    """
    looks: list[Look] = []
    alive = sorted(kinds, key=lambda job: not is_plain(job.arm))
    for look in range(len(SHARES)):
        share = (members.ledger.left - reserve) // (len(SHARES) - look)
        taken = _taken(members, alive, look, share)
        names = {job.name for job, _ in taken}
        taken += _taken(members, [job for job in kinds if job.name not in names], look, 0)
        last = look == len(SHARES) - 1
        some = pools if last else [pool for pool in pools if pool in CHOICE] or CHOICE
        found = {
            j.name: judged(members, one, look, some, None if is_plain(j.arm) else most, within if last else None)
            for j, one in taken
        }
        every = tuple(one for each in found.values() for one in each)
        left = sum(job.name not in found for job in alive)
        looks.append(Look(sum(members.order.stops[look]), len(found), left, every))
        alive = _better([job for job, _ in taken], found)
    return looks


def _taken(members: Members, alive: Sequence[Job], look: int, share: int) -> list[tuple[Job, Job]]:
    """Kinds that the share reaches for, each with the size it is looked at; their outputs are kept."""
    taken = []
    for job in alive:
        size = min(job.arm.members, max(2, job.arm.members // PARTS[look]))
        while size > 1 and members.price(job, size, look) > share:
            size //= 2
        price = members.price(job, size, look)
        if price > share:
            continue
        members.keep(job, size, look)
        share -= price
        taken.append((job, sized(job, size)))
    return taken


def _better(jobs: Sequence[Job], found: Mapping[str, Sequence[Candidate]]) -> list[Job]:
    """Full precision, and the better half of the others that fit the budgets, best first."""
    plain = [job for job in jobs if is_plain(job.arm)]
    others = [job for job in jobs if not is_plain(job.arm) and found[job.name]]
    others.sort(key=lambda job: min(one.loss for one in found[job.name]))
    return plain + others[: (len(others) + 1) // 2]
