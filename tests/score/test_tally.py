"""Tallies: shards add up, padding does not count, figures equal plain means."""

import functools
import operator
import pickle
import sys

import pytest
import torch

import pluria.pool as pool
import pluria.score as score
from pluria.score import ECE, ERROR, NLL, Rows, Score, Tally, ece, flatten, member_sums, tally

POOLED = (score.NLL, score.ERROR, score.BRIER, score.ECE)
MEMBERS = (
    score.MEMBER_NLL,
    score.GEOMETRIC_NLL,
    score.AMBIGUITY,
    score.MUTUAL_INFORMATION,
    score.VARIANCE,
    score.DISAGREEMENT,
    score.MEMBER_ERROR,
    score.MEMBER_BRIER,
)


def drawn(k=4, n=60, c=5):
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(k, n, c, generator=generator, dtype=torch.float64) * 2
    weights = torch.rand(k, generator=generator, dtype=torch.float64)
    y = torch.randint(c, (n,), generator=generator)
    return outputs, weights, y, member_sums(outputs, weights).mean_probs.log()


def test_figures_equal_plain_means():
    outputs, weights, y, pooled = drawn()
    figures = tally(POOLED + MEMBERS, pooled, y, outputs=outputs, weights=weights).figures()
    members = member_sums(outputs, weights)
    assert list(figures) == [s.name for s in POOLED + MEMBERS]
    for name in ("nll", "error", "brier"):
        assert figures[name] == pytest.approx(getattr(score, name)(pooled, y).mean().item(), rel=1e-13)
    for name in ("member_nll", "geometric_nll", "member_error", "member_brier"):
        assert figures[name] == pytest.approx(getattr(score, name)(members, y).mean().item(), rel=1e-13)
    for name in ("ambiguity", "mutual_information", "variance", "disagreement"):
        assert figures[name] == pytest.approx(getattr(score, name)(members).mean().item(), rel=1e-13)
    assert figures["ece"] == pytest.approx(ece(pooled, y), rel=1e-13)
    assert figures["member_nll"] - figures["geometric_nll"] == pytest.approx(figures["ambiguity"], abs=1e-12)


@pytest.mark.parametrize("size", [1, 7, 60])
def test_shards_add_up(size):
    outputs, weights, y, pooled = drawn()
    whole = tally(POOLED + MEMBERS, pooled, y, outputs=outputs, weights=weights)
    shards = [
        tally(POOLED + MEMBERS, pooled[s], y[s], outputs=outputs[:, s], weights=weights)
        for s in (slice(i, i + size) for i in range(0, 60, size))
    ]
    added = functools.reduce(operator.add, shards, Tally(POOLED + MEMBERS))
    assert added.count == whole.count == 60
    for name, figure in added.figures().items():
        assert figure == pytest.approx(whole.figures()[name], rel=1e-12, abs=1e-12)


def test_sums_of_members_serve_as_well_as_outputs():
    outputs, weights, y, pooled = drawn()
    streamed = member_sums(outputs[:1], weights[:1]) + member_sums(outputs[1:], weights[1:])
    whole = tally(MEMBERS, pooled, y, outputs=outputs, weights=weights).figures()
    assert tally(MEMBERS, pooled, y, members=streamed).figures() == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("per_example", [False, True])
@pytest.mark.parametrize("ignored", [-100, 255])
def test_ignored_rows_do_not_count(per_example, ignored):
    outputs, weights, y, pooled = drawn()
    weights = torch.rand(4, 60).double() if per_example else weights
    padded = y.clone()
    padded[::4] = ignored
    kept = padded != ignored
    found = tally(POOLED + MEMBERS, pooled, padded, outputs=outputs, weights=weights, ignore_index=ignored)
    some = weights[:, kept] if per_example else weights
    wanted = tally(POOLED + MEMBERS, pooled[kept], y[kept], outputs=outputs[:, kept], weights=some)
    assert found.count == int(kept.sum())
    assert found.figures() == pytest.approx(wanted.figures(), rel=1e-12)
    sums = tally(MEMBERS, pooled, padded, members=member_sums(outputs, weights), ignore_index=ignored)
    assert sums.figures() == pytest.approx({s.name: wanted.figures()[s.name] for s in MEMBERS}, rel=1e-12)


def test_dense_outputs_tally_after_flattening():
    outputs, weights, y, pooled = drawn()
    dense, targets = outputs.reshape(4, 6, 10, 5), y.reshape(6, 10)
    flat, rows = flatten(dense, targets)
    flat_pooled, _ = flatten(pooled.reshape(1, 6, 10, 5), targets)
    found = tally(POOLED + MEMBERS, flat_pooled[0], rows, outputs=flat, weights=weights).figures()
    assert found == pytest.approx(tally(POOLED + MEMBERS, pooled, y, outputs=outputs, weights=weights).figures())


def test_label_free_scores_need_no_targets():
    outputs, _, _, pooled = drawn()
    figures = tally((score.AMBIGUITY, score.DISAGREEMENT), pooled, outputs=outputs).figures()
    assert set(figures) == {"ambiguity", "disagreement"}
    with pytest.raises(ValueError, match="needs targets"):
        tally((NLL,), pooled)
    with pytest.raises(ValueError, match="needs the members"):
        tally((score.AMBIGUITY,), pooled)


def test_tallies_travel_between_processes():
    _, _, y, pooled = drawn()
    parts = [tally(POOLED, pooled[s], y[s]) for s in (slice(0, 20), slice(20, 60))]
    back = [pickle.loads(pickle.dumps(part)) for part in parts]
    assert (back[0] + parts[1]).figures() == (parts[0] + parts[1]).figures()


def test_an_empty_shard_is_the_zero():
    _, _, y, pooled = drawn()
    whole = tally((NLL, ECE), pooled, y)
    empty = tally((NLL, ECE), pooled, torch.full_like(y, -100))
    assert empty.count == 0
    assert (empty + whole).figures() == (whole + empty).figures() == whole.figures()
    with pytest.raises(ValueError, match="no row was counted"):
        empty.figures()


def test_an_own_score_is_two_functions():
    def statistics(rows: Rows) -> dict[str, torch.Tensor]:
        return {"hits": (rows.pooled.argmax(-1) == rows.targets).float(), "ones": torch.ones(len(rows.pooled))}

    odds = Score("odds", statistics, lambda sums, count: float(sums["hits"] / (count - sums["hits"])), better="higher")
    _, _, y, pooled = drawn()
    figures = tally((odds, ERROR), pooled, y).figures()
    assert figures["odds"] == pytest.approx((1 - figures["error"]) / figures["error"])


def test_what_does_not_fit_is_refused():
    outputs, weights, y, pooled = drawn()
    with pytest.raises(ValueError, match="names of their own"):
        tally((NLL, NLL), pooled, y)
    with pytest.raises(ValueError, match="y has 3 rows"):
        tally((NLL,), pooled, y[:3])
    with pytest.raises(ValueError, match="outputs has 7 rows"):
        tally(MEMBERS, pooled, y, outputs=outputs[:, :7])
    with pytest.raises(ValueError, match="members has 7 rows"):
        tally(MEMBERS, pooled, y, members=member_sums(outputs[:, :7], weights))
    with pytest.raises(ValueError, match="other scores"):
        _ = tally((NLL,), pooled, y) + tally((ERROR,), pooled, y)
    with pytest.raises(ValueError, match="59 values for 60 rows"):
        tally((Score("short", lambda rows: {"sum": rows.pooled[1:, 0]}),), pooled, y)
    y[0] = -100
    with pytest.raises(ValueError, match="59 values for 60 rows"):
        tally((NLL,), pooled, y, ignore_index=255)


def test_the_exported_names_are_exactly_what_is_exported():
    for package in (score, pool):
        names = list(package.__all__)
        assert len(set(names)) == len(names)
        modules = {m.rsplit(".", 1)[-1] for m in sys.modules if m.startswith(package.__name__ + ".")}
        public = {name for name in vars(package) if not name.startswith("_")} - (modules - set(names))
        assert public == set(names)
