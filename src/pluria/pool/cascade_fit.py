"""Fitting a cascade's windows, on rows that give no figure afterwards.

threshold   nll, error: at a price a on cost, thresholds make the mean of  l + a cost  least, where l is the loss of the
            answer that a row leaves with. One after the other, from the last, takes its best value, until none moves.
window      coverage, risk, outside: q is the rank of the score at which the decision falls after a stage; rows between
            the ranks q - h and q + h go on.
settling    settled: rows go on as long as the members left could change their first choice. Nothing is fitted.

Many prices, or half-widths h, give many cascades. Of these the cheapest is taken that keeps a share of what asking all
gains over the first stage (`keep`), or the best that costs at most a share of asking all (`budget`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pluria.pool.cascade import Cascade, Window, check_stages
from pluria.pool.cascade_rows import FIGURES, Answered, Windows, answered
from pluria.pool.rows import LEAST, targets_of

AT = {"coverage": 0.05, "risk": 0.8, "outside": 0.95}
"""Tasks of windows: the risk that is accepted, the coverage that is wanted, the share of known examples that passes."""
TASKS = ("nll", "error", *AT, "settled")
KEEP, WIDTH, SWEEPS = 0.95, 0.1, 10
SETTLED: Window = (-1e-9, None)
"""Below 0 nothing can change any more; the margin is for rounding."""


def fit_cascade(
    outputs: Tensor,
    y: Tensor | None = None,
    *,
    task: str = "nll",
    at: float | None = None,
    keep: float | None = None,
    budget: float | None = None,
    width: float | None = None,
    stages: Sequence[Sequence[int]] | None = None,
    costs: Sequence[float] | None = None,
    unit: str = "forwards",
    pool: str = "mean_logit",
    score: str = "max_probability",
    weights: Tensor | None = None,
    ignore_index: int = -100,
) -> Cascade:
    """A cascade over members with outputs `[K, N, C]` (logits, or log-probabilities) and targets `y` `[N]`.

    task      what it is for. "nll": the NLL after a temperature. "error". "coverage": the share of examples that can be
              accepted at a risk of `at` (0.05). "risk": the error among the share `at` (0.8) that is accepted.
              "outside": unknown examples, where a share `at` (0.95) of the known ones is to pass; reads no `y`.
              "settled": the first choice of all members by `mean_probability`; reads no `y`
    keep      the share of asking all's gain over the first stage that is kept on these rows; 0.95 where nothing is said
    budget    instead: the largest cost, as a share of asking all
    width     instead, of windows: their half-width as a share of the rows; 0.1 is usual, and taken for "outside"
    stages    positions of the members that each stage asks; None: one member after the other
    costs     what asking each member costs, `[K]`, in `unit`; None: one forward each
    weights   mixing weights `[K]`; None: equal

    Raises ValueError for fewer than 20 rows, shapes and options that do not fit, NaN and +inf, a budget below the first
    stage's cost, and a risk that no coverage has.
    """
    _check(task, keep, budget, width)
    _check_place(task, at, score)
    if outputs.ndim != 3 or len(outputs) == 0:
        raise ValueError(f"a cascade asks for whole examples: outputs are [K, N, C], not {list(outputs.shape)}")
    outputs, y = _labelled(outputs, y, ignore_index) if task in FIGURES else (outputs, None)
    if outputs.shape[1] < LEAST:
        raise ValueError(f"a cascade is fitted on {LEAST} rows or more; got {outputs.shape[1]}")
    if task == "settled":
        pool, score = "mean_probability", "settled"
    shape = _shape(outputs, stages, costs, unit, pool, score)
    place = AT.get(task, 0.5) if at is None else at
    rows = answered(shape, outputs, weights, y, task=task, at=place)
    if bool(rows.answers.isnan().any()):
        raise ValueError("the outputs hold NaN, +inf, or a row without a possible class; a cascade has no use for them")
    windows = _chosen(rows, keep, budget, width)
    return replace(shape, windows=windows, reached=rows.reached(windows))


def _check(task: str, *options: float | None) -> None:
    """Raise ValueError unless at most one of keep, budget and width is given, and one that the task takes."""
    names = ("keep", "budget", "width")
    given = {name: value for name, value in zip(names, options, strict=True) if value is not None}
    if task not in TASKS:
        raise ValueError(f"a task is one of {', '.join(TASKS)}; got {task!r}")
    taken = {"settled": (), "outside": ("budget", "width")}.get(task, names if task in AT else names[:2])
    if len(given) > 1 or not set(given) <= set(taken):
        raise ValueError(f"the task {task!r} takes one of ({', '.join(taken)}); got {given}")
    if not all(0 < value <= 1 for value in given.values()):
        raise ValueError(f"keep, budget and width are shares, above 0 and at most 1; got {given}")


def _check_place(task: str, at: float | None, score: str) -> None:
    """Raise ValueError for a place of decision that is none, or that the task or the score does not know."""
    if at is not None and not (task in AT and 0 < at < 1):
        raise ValueError(f"`at` is a risk, coverage or share, between 0 and 1, of {', '.join(AT)}; got {at} ({task})")
    if task in AT and score == "movement":
        raise ValueError(
            "after the first stage nothing has moved yet, so the score 'movement' has no rank at which a decision "
            f"falls; the task {task!r} takes another"
        )


def _labelled(outputs: Tensor, y: Tensor | None, ignore_index: int) -> tuple[Tensor, Tensor]:
    if y is None:
        raise ValueError("this task is fitted on targets y [N], and none are given")
    kept, targets = targets_of(outputs.shape[1:], y, ignore_index)
    return outputs[:, kept], targets


def _shape(
    outputs: Tensor,
    stages: Sequence[Sequence[int]] | None,
    costs: Sequence[float] | None,
    unit: str,
    pool: str,
    score: str,
) -> Cascade:
    """The cascade that asks all members of all examples."""
    members = len(outputs)
    groups = tuple((member,) for member in range(members)) if stages is None else tuple(map(tuple, stages))
    check_stages(groups, members)
    each = (1.0,) * members if costs is None else tuple(costs)
    if len(each) != members:
        raise ValueError(f"costs are one for each of {members} members; got {len(each)}")
    return Cascade(groups, ((None, None),) * (len(groups) - 1), outputs.shape[-1], each, pool, score, unit)


def _chosen(rows: Answered, keep: float | None, budget: float | None, width: float | None) -> Windows:
    """The windows that do what is asked at the least cost, or best within it."""
    gates = len(rows.costs) - 1
    none, every = (None,) * gates, ((None, None),) * gates
    if rows.task == "settled":
        return (SETTLED,) * gates
    if width is not None or (rows.task == "outside" and budget is None):
        return _around(rows, [rows.rank(stage) for stage in range(gates)], width or WIDTH)
    tried = list(dict.fromkeys([none, *_tried(rows), every]))
    if budget is not None:
        return _within(rows, tried, budget)
    first, full = rows.figure(none), rows.figure(every)
    wanted = first - (KEEP if keep is None else keep) * max(first - full, 0.0)
    return min((one for one in tried if rows.figure(one) <= wanted + 1e-12), key=rows.cost)


def _within(rows: Answered, tried: Sequence[Windows], budget: float) -> Windows:
    """The best within a budget; of unknown examples there are no rows, so there the dearest."""
    allowed = [one for one in tried if rows.cost(one) <= budget + 1e-12]
    if not allowed:
        raise ValueError(f"the first stage takes {float(rows.costs[0]):.3g} of asking all; the budget is {budget}")
    if rows.task == "outside":
        return max(allowed, key=rows.cost)
    return min(allowed, key=lambda one: (rows.figure(one), rows.cost(one)))


def _tried(rows: Answered) -> Iterator[Windows]:
    """Windows of many prices, or of many widths."""
    gates = len(rows.costs) - 1
    if rows.task in AT:
        ranks = [rows.rank(stage) for stage in range(gates)]
        yield from (_around(rows, ranks, width / 100) for width in range(1, 100))
        return
    losses = rows.losses()
    gain = float((losses[0] - losses[-1]).mean())
    found: Windows = ((None, None),) * gates
    for power in range(-12, 9):
        found = _thresholds(rows, losses, max(gain, 0.0) * 2 ** (power / 2), found)
        yield found


def _around(rows: Answered, ranks: Sequence[float], width: float) -> Windows:
    """Windows of this half-width around the ranks; an end beyond all rows is open."""
    return tuple(
        (
            float(rows.scores[stage].quantile(rank - width)) if rank > width else None,
            float(rows.scores[stage].quantile(rank + width)) if rank + width < 1 else None,
        )
        for stage, rank in enumerate(ranks)
    )


def _thresholds(rows: Answered, losses: Tensor, price: float, begin: Windows) -> Windows:
    """Thresholds that none can leave for the better, begun with those of a lower price."""
    gates = len(rows.costs) - 1
    found = list(begin)
    for _ in range(SWEEPS):
        before = tuple(found)
        for gate in reversed(range(gates)):
            open_ = (*found[:gate], *[(None, None)], *found[gate + 1 :])
            left = rows.left(open_)
            paid = losses.gather(0, left[None])[0] + price * rows.costs.cumsum(0)[left]
            stays = losses[gate] + price * rows.costs[: gate + 1].sum()
            here = left > gate
            found[gate] = _cut(rows.scores[gate][here], (stays - paid)[here])
        if tuple(found) == before:
            break
    return tuple(found)


def _cut(scores: Tensor, gains: Tensor) -> Window | None:
    """Above which score the gains of going on have the largest sum, half-way to the next; None: nobody goes on."""
    order = scores.argsort(descending=True, stable=True)
    ranked, sums = scores[order], gains[order].cumsum(0)
    last = torch.cat([ranked[1:] < ranked[:-1], torch.ones(min(len(ranked), 1), dtype=torch.bool)])
    sums = sums.masked_fill(~last, -torch.inf)  # rows of one score stay together
    if len(sums) == 0 or float(sums.max()) <= 0:
        return None
    best = int(sums.argmax())
    low = float(ranked[best])
    return ((low + float(ranked[best + 1])) / 2, None) if best + 1 < len(ranked) else (None, None)
